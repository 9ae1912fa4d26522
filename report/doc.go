// Package report writes and reads reports: the evidence that one answered request saves.
//
// A report's exact bytes are hashed, and the hash is the token, so they are canonical: [Encode] is the one
// function that writes them, and [Decode] refuses bytes that Encode would have written otherwise. Keys that
// this version does not know are kept. [Text] shows a report as Appendix B of the thesis does.
//
// The names of the keys are a contract: they are never renamed or removed, and added only at the end of
// their object.
package report

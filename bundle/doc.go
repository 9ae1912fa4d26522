// Package bundle makes and reads disclosures: all that a token stands for and what speaks for it, in one file that
// stock tools open and that anybody can check without a network, a key of the host, or this program. A bundle is a
// BagIt bag (RFC 8493) in a zip file; docs/bundle.md gives its form.
//
// It is written by whoever has the administrator's key and read by somebody who trusts neither him nor the file: every
// octet of a bundle follows from the records of the store that are in it, from their proofs, and from two lines that
// say who packed it and when. [Open] makes the bag again from those and refuses every other.
package bundle

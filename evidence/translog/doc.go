// Package translog keeps the transparency log of a store: a Merkle tree (RFC 6962) with one leaf a record, on
// disk as c2sp.org/tlog-tiles has it, its head signed as a c2sp.org/tlog-checkpoint and shown to witnesses
// (c2sp.org/tlog-witness), who cosign it (c2sp.org/tlog-cosignature).
//
//	DIR/checkpoint            the newest checkpoint, with the cosignatures that it has
//	DIR/cosigned              the newest checkpoint that a quorum of witnesses cosigned
//	DIR/tile/entries/<N>      256 leaves, each behind its length (2 octets, big-endian)
//	DIR/tile/<L>/<N>          256 hashes of level L
//	.../<N>.p/<W>             the last tile of a level, as wide as the newest checkpoint needs it
//
// The log is derived from the records, up to its newest checkpoint: what a crash left behind that is written
// again from them. Older partial tiles are removed when a newer checkpoint is there: a wider tile begins with
// what they held.
package translog

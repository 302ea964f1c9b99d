// Package tools is what an operator does by hand: look at the blocks of a bucket
// and mend them, bring data in and out, find what costs too much, prove that what
// was written is read back.
//
// It marks blocks and never removes one (that is pkg/compact's), and goes
// through pkg/block for everything that concerns blocks in a bucket. Nothing
// here prints: results are values that the command line shows as a table or for
// programs. Functions are safe for concurrent use.
package tools

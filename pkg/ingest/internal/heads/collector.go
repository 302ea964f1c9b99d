package heads

import "runtime/debug"

// openingPercent is by how much memory grows between two collections during the first opening.
const openingPercent = 200

// collectSeldom lets Go's garbage collector wait until it is told to go on as before. A TSDB that is
// opened takes memory and gives hardly any of it back. But each time memory has grown by as little as
// the binary lets garbage gather, the collector goes through all of it, which is a fifth of the work of
// an opening. The memory limit of the process holds as ever.
//
// It is for a process that holds nothing yet: where other TSDBs are open their
// memory counts, too, and garbage would grow to twice of it.
func collectSeldom() (goOn func()) {
	before := debug.SetGCPercent(openingPercent)
	if before < 0 || before > openingPercent {
		debug.SetGCPercent(before) // as the operator wants it
	}
	return func() { debug.SetGCPercent(before) }
}

// Package proctest has what tests want of the process and the machine they run in,
// however slow that is and whatever else it does: goroutines that are waited for
// (Main, NoLeaks) and addresses that stay their own (Addr). Only tests import it.
package proctest

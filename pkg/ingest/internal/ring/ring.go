// Package ring says which nodes own a series: by a ring of tokens that nodes
// agree on by gossip, or by Thanos' hashring files.
//
//	Gossip ─► Members ─┐
//	                   ├─► View ─► Owners(hash) ─► Set: who is written to, how many must confirm
//	Static ─► file ────┘
//
// Placing is a pure function of members and settings (place, ketama, hashmod);
// Gossip and Static only watch for changes and keep the last View. All exported
// methods may be called at once by many.
package ring

import (
	"github.com/firnline/firnline/pkg/tenant"
)

// Instance is a node that owns series.
type Instance struct {
	ID    string // unique in the ring; of a hashring file the address
	Addr  string // host:port of its gRPC server
	Zone  string // empty: none
	Local bool   // this process
}

// Ring places series.
type Ring interface {
	// View returns how the series of a tenant are placed now. The error is a
	// *refuse.Error with reason NotReady or UnknownTenant.
	View(id tenant.ID) (*View, error)
}

// Set is the owners of a series.
type Set struct {
	Owners []uint16 // numbers in View.Instances, ascending
	// Quorum is how many must confirm. With fewer owners than that nothing can be
	// written: too many nodes are away.
	Quorum int
}

// quorum is how many of rf copies must be confirmed. Of two it is both.
func quorum(rf int) int { return rf/2 + 1 }

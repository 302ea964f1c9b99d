package ring

import (
	"time"
)

// State is where a member of the gossip ring is in its life.
type State string

// States. Only an Active member is written to; all but a Pending one may hold
// what others have acknowledged, and are read.
const (
	Pending State = "PENDING" // new, not ready yet
	Joining State = "JOINING" // was here before; replays its log, or is restarted
	Active  State = "ACTIVE"
	Leaving State = "LEAVING" // for good: it flushes what it has
)

// Member is a node in the gossip ring.
type Member struct {
	ID, Addr, Zone string
	State          State
	Tokens         []uint32 // sorted
	Heartbeat      time.Time
	Healthy        bool // its heartbeat is young enough
}

// writable tells whether new samples are sent to it.
func (m *Member) writable() bool { return m.State == Active && m.Healthy }

// counts tells whether it is one of the nodes that the automatic replication
// factor is made of. A node that is away counts, or the loss of one would lower
// what a quorum means.
func (m *Member) counts() bool { return m.State == Active || m.State == Joining }

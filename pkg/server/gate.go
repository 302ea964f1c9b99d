package server

// gate lets a bounded number through at once and turns the rest away: those who
// wait would time out anyway, and what is worth a queue has one of its own.
type gate chan struct{}

func newGate(n int) gate { return make(gate, n) }

// enter tells whether there was room; if so, leave must follow.
func (g gate) enter() bool {
	select {
	case g <- struct{}{}:
		return true
	default:
		return false
	}
}

func (g gate) leave() { <-g }

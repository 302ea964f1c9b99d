package ring

import "github.com/grafana/dskit/services"

// Port is the one that gossip listens on, which the system has chosen; 0 before it does.
func (g *Gossip) Port() int {
	if g.kv.State() != services.Running {
		return 0
	}
	return g.kv.GetListeningPort()
}

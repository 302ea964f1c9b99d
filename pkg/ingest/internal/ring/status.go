package ring

import (
	"math"
	"time"
)

// Status is a ring as JSON, for people and tools.
type Status struct {
	ReplicationFactor int            `json:"replication_factor"`
	Quorum            int            `json:"quorum"`
	Instances         []MemberStatus `json:"instances"`
}

// MemberStatus is a node of it.
type MemberStatus struct {
	ID              string  `json:"id"`
	Address         string  `json:"address"`
	Zone            string  `json:"zone,omitempty"`
	State           State   `json:"state"`
	Healthy         bool    `json:"healthy"`
	Local           bool    `json:"local,omitempty"`
	Tokens          int     `json:"tokens"`
	OwnsPercent     float64 `json:"owns_percent"`                    // of the copies that are written now
	HeartbeatAgeSec float64 `json:"heartbeat_age_seconds,omitempty"` // a static ring has no heartbeats
}

// Status tells what the ring looks like.
func (g *Gossip) Status() Status {
	p := g.placed.Load()
	shares := p.whole.shares()
	s := Status{ReplicationFactor: p.rf, Quorum: quorum(p.rf), Instances: []MemberStatus{}}
	for i, m := range p.members {
		status := MemberStatus{ID: m.ID, Address: m.Addr, Zone: m.Zone, State: m.State, Healthy: m.Healthy, Local: m.ID == g.id, Tokens: len(m.Tokens), HeartbeatAgeSec: g.heartbeatAge(m.ID).Seconds()}
		if shares != nil {
			status.OwnsPercent = shares[i]
		}
		s.Instances = append(s.Instances, status)
	}
	return s
}

// heartbeatAge is how long ago a member's last heartbeat was seen. The members
// placed have that of the last change.
func (g *Gossip) heartbeatAge(id string) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.parts.Now().Sub(g.seen[id].seen)
}

// Status tells what the hashrings look like: those of the first hashring that an endpoint is in.
func (s *Static) Status() Status {
	var out Status
	seen := map[string]bool{}
	for _, r := range s.loaded.Load().rings {
		out.ReplicationFactor = max(out.ReplicationFactor, r.rf)
		shares := r.whole.shares()
		for i, n := range r.whole.instances {
			if seen[n.ID] {
				continue
			}
			seen[n.ID] = true
			out.Instances = append(out.Instances, MemberStatus{ID: n.ID, Address: n.Addr, Zone: n.Zone, State: Active, Healthy: true, Local: n.Local, OwnsPercent: shares[i]})
		}
	}
	out.Quorum = quorum(out.ReplicationFactor)
	return out
}

// shares returns the percentage of hashes that each instance has a copy of,
// rounded to hundredths.
func (v *View) shares() []float64 {
	if v == nil {
		return nil
	}
	of := make([]float64, len(v.instances))
	last := -1.0
	for i, set := range v.set {
		part := 1 / float64(max(v.mod, 1))
		if v.mod == 0 {
			part = (float64(v.ends[i]) - last) / math.MaxUint64
			last = float64(v.ends[i])
		}
		for _, o := range v.sets[set].Owners {
			of[o] += 100 * part
		}
	}
	for i := range of {
		of[i] = math.Round(of[i]*100) / 100
	}
	return of
}

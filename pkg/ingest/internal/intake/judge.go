package intake

import (
	"slices"
	"time"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/ha"
	"github.com/firnline/firnline/pkg/ingest/internal/limits"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// judge looks at the classes of those series that are not ordinary: who owns
// them, or why they are left out.
func (in *Intake) judge(c *catalog, b *batch.Batch, sc *scratch, now time.Time) {
	sc.ownAll(c.self, b)
	p := pairs{in: in, rules: haRules(c.rules.lim), now: now}
	all := c.load()
	for _, sp := range sc.special {
		cl, s := &all[sp.class], &b.Series[sp.series]
		if taken, reason := p.judge(cl, s); !taken {
			s.ID, sc.owner[sp.series] = 0, nil
			sc.note(sp, reason, samplesOf(s))
			continue
		}
		s.ID = c.idAt(cl.owner, sp.id)
		sc.owner[sp.series] = cl.owner
		if s.ID == 0 { // its entry left while we looked: nobody had sent it for hours
			sc.owner[sp.series] = nil
			sc.note(sp, refuse.NotReady, samplesOf(s))
		}
	}
}

// ownAll gives all series that have an ID to the request's tenant.
func (sc *scratch) ownAll(self *owner, b *batch.Batch) {
	for i := range b.Series {
		o := self
		if b.Series[i].ID == 0 {
			o = nil
		}
		sc.owner = append(sc.owner, o)
	}
}

// note adds up what is refused; no reason: it is dropped on purpose.
func (sc *scratch) note(sp special, reason refuse.Reason, samples int) {
	if reason == "" {
		return
	}
	for i := range sc.tally {
		if t := &sc.tally[i]; t.class == sp.class && t.reason == reason {
			t.samples += samples
			return
		}
	}
	sc.tally = append(sc.tally, tallied{class: sp.class, reason: reason, series: sp.series, samples: samples})
}

// pairs asks for each sender of a request once in a row.
type pairs struct {
	in    *Intake
	rules ha.Rules
	now   time.Time

	last    *class
	verdict ha.Verdict
}

// judge tells whether a series is taken; if not, the reason, "" for what is left out on purpose.
func (p *pairs) judge(cl *class, s *batch.Series) (taken bool, reason refuse.Reason) {
	switch {
	case cl.verdict == dropped:
		p.in.metrics.dropped.Add(float64(samplesOf(s)))
		return false, ""
	case cl.verdict == refused:
		return false, cl.reason
	case cl.replica == "":
		return true, ""
	}
	if p.last == nil || p.last.pair != cl.pair || p.last.replica != cl.replica {
		p.last, p.verdict = cl, p.in.elect.Take(cl.pair, cl.replica, p.rules, p.now)
	}
	switch p.verdict {
	case ha.Elected:
		return true, ""
	case ha.TooMany:
		return false, refuse.TooManyClusters
	}
	p.in.metrics.standby.Add(float64(samplesOf(s)))
	return false, ""
}

// report adds what was noted to the request's tally, with an example of each reason.
func (c *catalog) report(sc *scratch, raw labelsOf, t *refuse.Tally) {
	all := c.load()
	for _, n := range sc.tally {
		t.Add(n.reason, n.samples, func() *refuse.Error {
			cl := &all[n.class]
			switch n.reason {
			case refuse.TooManyClusters:
				return refuse.Errorf(n.reason, cl.owner.id, "tenant %s has more pairs of senders than %d (ha.max_clusters of tenant %s), so none is elected for cluster %q; raise it",
					cl.owner.id, c.rules.lim.HA.MaxClusters, c.rules.own, cl.pair.Cluster)
			case refuse.NotReady:
				return refuse.Errorf(n.reason, cl.owner.id, "a series came back after a long time; send it again")
			}
			f, err := c.rules.fateOf(raw, int(n.series))
			if err != nil || f.err == nil {
				return refuse.Errorf(n.reason, c.rules.own, "series %d of the request", n.series)
			}
			return f.err
		})
	}
}

// split makes a Part for each owner of series. Their numbers are memory of their own.
func split(b *batch.Batch, sc *scratch) []Part {
	var parts []Part
	var owners []*owner
	last := 0
	for i, o := range sc.owner {
		if o == nil {
			continue
		}
		if len(owners) == 0 || owners[last] != o {
			if last = slices.Index(owners, o); last < 0 {
				last = len(owners)
				owners = append(owners, o)
				parts = append(parts, Part{Tenant: o.id, Session: o.session})
			}
		}
		parts[last].Series = append(parts[last].Series, uint32(i))
		parts[last].Samples += samplesOf(&b.Series[i])
	}
	return parts
}

func haRules(lim *limits.Limits) ha.Rules {
	return ha.Rules{
		Failover: time.Duration(lim.HA.FailoverTimeout), Update: time.Duration(lim.HA.UpdateInterval), MaxClusters: lim.HA.MaxClusters,
	}
}

package intake

import (
	"time"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/ha"
	"github.com/firnline/firnline/pkg/ingest/internal/limits"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// judge looks at the classes of those series that are not ordinary: who owns
// them, or why they are left out.
func (c *call) judge() {
	c.ownAll()
	p := pairs{in: c.in, rules: haRules(c.lim), now: c.now}
	all := c.cat.load()
	for _, sp := range c.special {
		cl, s := &all[sp.class], &c.batch.Series[sp.series]
		if taken, reason := p.judge(cl, s); !taken {
			c.leave(sp, reason)
			continue
		}
		if s.ID = c.cat.idAt(cl.owner, sp.id); s.ID == 0 { // its entry left while we looked: nobody had sent it for hours
			c.leave(sp, refuse.NotReady)
			continue
		}
		c.owners[sp.series] = cl.owner
	}
}

// ownAll gives all series that have an ID to the request's tenant.
func (c *call) ownAll() {
	for i := range c.batch.Series {
		o := c.cat.self
		if c.batch.Series[i].ID == 0 {
			o = nil
		}
		c.owners = append(c.owners, o)
	}
}

// leave leaves a series out. Without a reason that is on purpose.
func (c *call) leave(sp special, reason refuse.Reason) {
	s := &c.batch.Series[sp.series]
	s.ID, c.owners[sp.series] = 0, nil
	if reason == "" {
		return
	}
	for i := range c.noted {
		if n := &c.noted[i]; n.class == sp.class && n.reason == reason {
			n.samples += samplesOf(s)
			return
		}
	}
	c.noted = append(c.noted, noted{class: sp.class, reason: reason, series: sp.series, samples: samplesOf(s)})
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
func (c *call) report() {
	for _, n := range c.noted {
		c.tally.Add(n.reason, n.samples, func() *refuse.Error { return c.example(n) })
	}
}

// example makes the refusal of a class' series anew, by its labels.
func (c *call) example(n noted) *refuse.Error {
	cl, own := &c.cat.load()[n.class], c.cat.rules.own
	switch n.reason {
	case refuse.TooManyClusters:
		return refuse.Errorf(n.reason, cl.owner.id, "tenant %s has more pairs of senders than %d (ha.max_clusters of tenant %s), so none is elected for cluster %q; raise it",
			cl.owner.id, c.lim.HA.MaxClusters, own, short(cl.pair.Cluster))
	case refuse.NotReady:
		return refuse.Errorf(n.reason, cl.owner.id, "a series came back after a long time; send it again")
	}
	f, err := c.cat.rules.fateOf(c.raw, int(n.series))
	if err != nil || f.err == nil {
		return refuse.Errorf(n.reason, own, "series %d of the request", n.series)
	}
	return f.err
}

func haRules(lim *limits.Limits) ha.Rules {
	return ha.Rules{
		Failover: time.Duration(lim.HA.FailoverTimeout), Update: time.Duration(lim.HA.UpdateInterval), MaxClusters: lim.HA.MaxClusters,
	}
}

package compact

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// Backlog is what is left to do in one group.
type Backlog struct {
	Group  string         `json:"group"`
	Labels string         `json:"labels"`
	Jobs   map[string]int `json:"jobs"` // by kind
	Blocks int            `json:"blocks"`
	Bytes  int64          `json:"bytes"`
	Hours  float64        `json:"estimated_hours"` // of one worker; 0: unknown
}

// RunningJob is a job that runs in this process.
type RunningJob struct {
	Key       string    `json:"key"`
	Kind      string    `json:"kind"`
	Group     string    `json:"group"`
	What      string    `json:"what"`
	Why       string    `json:"why"`
	Stage     string    `json:"stage"`
	Started   time.Time `json:"started"`
	Share     float64   `json:"share"`                  // done, 0 to 1
	Left      float64   `json:"estimated_seconds_left"` // 0: unknown
	Inputs    []string  `json:"inputs"`
	Results   []string  `json:"results"`
	ReadBytes int64     `json:"read_bytes"`
	AllBytes  int64     `json:"input_bytes"`
	SentBytes int64     `json:"sent_bytes"`
}

// Tier is what a group has of one resolution.
type Tier struct {
	Group      string    `json:"group"`
	Labels     string    `json:"labels"`
	Resolution string    `json:"resolution"`
	From       time.Time `json:"from"`
	To         time.Time `json:"to"`
	Blocks     int       `json:"blocks"`
	Bytes      int64     `json:"bytes"`
}

// Noted is a block or group about which there is something to say.
type Noted struct {
	Block      string     `json:"block,omitempty"`
	Group      string     `json:"group,omitempty"`
	Resolution string     `json:"resolution,omitempty"`
	Time       *time.Time `json:"time,omitempty"` // since or until when
	Why        string     `json:"why"`
}

// Status is what a compactor does and what it knows of its bucket.
type Status struct {
	Owner          string       `json:"owner"` // who we are in claims
	Ready          string       `json:"waiting_for,omitempty"`
	Fault          string       `json:"fault,omitempty"` // why nothing is removed at the moment
	SingleInstance bool         `json:"single_instance"` // no claims are possible in this bucket
	ClockSkew      float64      `json:"clock_skew_seconds"`
	Blocks         int          `json:"blocks"`        // visible, marked ones too
	Marked         int          `json:"marked_blocks"` // for deletion; removed once the mark is old enough
	Partial        int          `json:"partial_blocks"`
	Looked         time.Time    `json:"looked"`
	BytesPerSecond float64      `json:"bytes_per_second"` // of one worker
	Hours          float64      `json:"estimated_hours"`
	Running        []RunningJob `json:"running"`
	Elsewhere      []heldJob    `json:"elsewhere"` // claimed by other workers, as far as known
	Failed         []failure    `json:"failed"`
	Backlog        []Backlog    `json:"backlog"`
	Garbage        int          `json:"garbage_blocks"`
	Expired        int          `json:"expired_blocks"`
	Removable      int          `json:"removable_blocks"`
	Tiers          []Tier       `json:"tiers"`
	Held           []Noted      `json:"held"`
	SetAside       []Noted      `json:"set_aside"`
	Resting        []Noted      `json:"resting"`
}

// Status tells what is done and known at this moment.
func (c *Compactor) Status() Status {
	running, failed, held := c.jobs.lists()
	s := Status{
		Owner: c.dir.owner, ClockSkew: c.clock.skew().Seconds(), SingleInstance: c.claims.impossible(),
		BytesPerSecond: c.jobs.rate(), Failed: orEmpty(failed), Elsewhere: orEmpty(held), Running: []RunningJob{},
	}
	if err := c.view.waiting(); err != nil {
		s.Ready = err.Error()
	}
	for _, p := range running {
		s.Running = append(s.Running, p.status(c.now()))
	}
	switch p, err := c.plan(); {
	case err != nil:
		s.Fault = err.Error()
	case p != nil:
		s.fill(p)
	}
	return s
}

// fill adds what a plan says.
func (s *Status) fill(p *planned) {
	if p.snap.fault != nil {
		s.Fault = p.snap.fault.Error()
	}
	s.Blocks, s.Partial, s.Looked = len(p.snap.Metas), len(p.snap.Partial), p.snap.taken
	s.Marked = p.snap.marks()
	s.Garbage, s.Expired, s.Removable = len(p.Garbage), len(p.Expired), len(p.Remove)+len(p.Partial)
	s.Backlog = backlogOf(p)
	var all int64
	for i := range s.Backlog {
		s.Backlog[i].Hours = hoursFor(s.Backlog[i].Bytes, s.BytesPerSecond)
		all += s.Backlog[i].Bytes
	}
	s.Hours = hoursFor(all, s.BytesPerSecond)
	s.Tiers, s.Held, s.SetAside, s.Resting = tiersOf(&p.Plan), heldIn(&p.Plan), setAsideIn(&p.Plan), restingIn(&p.Plan)
}

func tiersOf(p *plan.Plan) []Tier {
	out := []Tier{}
	for _, t := range p.Coverage {
		out = append(out, Tier{
			Group: t.Group, Labels: t.Labels.String(), Resolution: resolutionName(t.Resolution),
			From: time.UnixMilli(t.MinTime).UTC(), To: time.UnixMilli(t.MaxTime).UTC(), Blocks: t.Blocks, Bytes: t.Bytes,
		})
	}
	return out
}

func heldIn(p *plan.Plan) []Noted {
	out := []Noted{}
	for _, h := range p.Held {
		out = append(out, Noted{Block: h.Block.String(), Group: h.Group, Resolution: resolutionName(h.Resolution), Time: &h.Since, Why: h.Why})
	}
	return out
}

func setAsideIn(p *plan.Plan) []Noted {
	out := []Noted{}
	for _, a := range p.SetAside {
		out = append(out, Noted{Block: a.Block.String(), Group: a.Group, Why: a.Why})
	}
	return out
}

func restingIn(p *plan.Plan) []Noted {
	out := []Noted{}
	for _, r := range p.Resting {
		out = append(out, Noted{Group: r.Group, Time: &r.Until, Why: r.Why})
	}
	return out
}

func (p *progress) status(now time.Time) RunningJob {
	j := p.job
	out := RunningJob{
		Key: j.Key, Kind: string(j.Kind), Group: j.Group, What: describe(j), Why: j.Why,
		Stage: p.stageName(), Started: p.started, Share: p.share(), Left: p.left(now).Seconds(),
		ReadBytes: p.read.Load(), AllBytes: j.InputBytes, SentBytes: p.sent.Load(),
	}
	for _, m := range j.Inputs {
		out.Inputs = append(out.Inputs, m.ULID.String())
	}
	for _, o := range j.Outputs {
		out.Results = append(out.Results, o.Meta.ULID.String())
	}
	return out
}

// backlogOf sums up a plan's jobs by group, the largest first.
func backlogOf(p *planned) []Backlog {
	groups := map[string]*Backlog{}
	for i := range p.Jobs {
		j := &p.Jobs[i]
		g := groups[j.Group]
		if g == nil {
			g = &Backlog{Group: j.Group, Labels: j.Labels.String(), Jobs: map[string]int{}}
			groups[j.Group] = g
		}
		g.Jobs[string(j.Kind)]++
		g.Blocks += len(j.Inputs)
		g.Bytes += share(j)
	}
	out := []Backlog{}
	for _, g := range slices.SortedFunc(maps.Values(groups), func(a, b *Backlog) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Group, b.Group))
	}) {
		out = append(out, *g)
	}
	return out
}

// share is what a job reads: of a split only a part of each input.
func share(j *plan.Job) int64 {
	if j.Kind == plan.Split && len(j.Outputs) > 0 {
		if s, err := shardOf(j.Outputs[0].Meta); err == nil && s != nil && s.Count > 0 {
			return j.InputBytes / int64(s.Count)
		}
	}
	return j.InputBytes
}

// hoursFor is how long one worker takes for so many bytes; 0: unknown.
func hoursFor(bytes int64, perSec float64) float64 {
	if perSec <= 0 {
		return 0
	}
	return float64(bytes) / perSec / 3600
}

// orEmpty makes an empty list of nil, which JSON would show as null.
func orEmpty[T any](in []T) []T {
	if in == nil {
		return []T{}
	}
	return in
}

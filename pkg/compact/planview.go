package compact

import (
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// PlannedJob is a job that would be done.
type PlannedJob struct {
	Kind       string          `json:"kind"`
	Key        string          `json:"key"`
	Group      string          `json:"group"`
	Labels     string          `json:"labels"`
	Resolution string          `json:"resolution"` // of the inputs
	From       time.Time       `json:"from"`
	To         time.Time       `json:"to"`
	Inputs     []string        `json:"inputs"`
	Results    []PlannedResult `json:"results"`
	InputBytes int64           `json:"input_bytes"`
	DiskBytes  int64           `json:"disk_bytes"` // at most
	Why        string          `json:"why"`
}

// PlannedResult is a block that a job would write.
type PlannedResult struct {
	Block      string `json:"block"`
	Resolution string `json:"resolution"`
}

// PlanView is a plan for programs; its String is the one for people.
type PlanView struct {
	Jobs        []PlannedJob `json:"jobs"`
	Garbage     []Noted      `json:"garbage"` // to be marked, since others hold all of it
	Expired     []Noted      `json:"expired"` // to be marked, by retention
	Marked      int          `json:"marked"`  // for deletion already
	Remove      []string     `json:"remove"`  // of these, marked for long enough
	Partial     []string     `json:"remove_partial"`
	DeletesDone []string     `json:"delete_requests_done"`
	Held        []Noted      `json:"held"`
	SetAside    []Noted      `json:"set_aside"`
	Resting     []Noted      `json:"resting"`
	Tiers       []Tier       `json:"tiers"`

	text string
}

// Rows of a list in a text; as JSON a plan has all of them.
const (
	viewRows = 200
	passRows = 20
)

// String implements fmt.Stringer: tables.
func (v *PlanView) String() string { return v.text }

func newPlanView(p *plan.Plan, marked, rows int) *PlanView {
	v := &PlanView{
		Jobs: []PlannedJob{}, Garbage: toMark(p.Garbage), Expired: toMark(p.Expired),
		Marked: marked, Remove: idStrings(p.Remove), Partial: idStrings(p.Partial), DeletesDone: idStrings(p.DeletesDone),
		Held: heldIn(p), SetAside: setAsideIn(p), Resting: restingIn(p), Tiers: tiersOf(p), text: plan.Format(*p, rows),
	}
	for i := range p.Jobs {
		v.Jobs = append(v.Jobs, plannedJob(&p.Jobs[i]))
	}
	if marked > 0 {
		v.text += fmt.Sprintf("MARKED for deletion %d, not counted above; each is removed a --delete-delay after its mark\n", marked)
	}
	return v
}

// Left is what a pass leaves behind, for people: what is still to do, held, set
// aside or resting, and what each group has of each tier.
func (c *Compactor) Left() (string, error) {
	p, err := c.plan()
	if p == nil || err != nil {
		return "", err
	}
	return newPlanView(&p.Plan, p.snap.marks(), passRows).String(), nil
}

func plannedJob(j *plan.Job) PlannedJob {
	out := PlannedJob{
		Kind: string(j.Kind), Key: j.Key, Group: j.Group, Labels: j.Labels.String(), Resolution: resolutionName(j.Resolution),
		From: time.UnixMilli(j.MinTime).UTC(), To: time.UnixMilli(j.MaxTime).UTC(),
		InputBytes: j.InputBytes, DiskBytes: j.DiskBytes, Why: j.Why,
	}
	for _, m := range j.Inputs {
		out.Inputs = append(out.Inputs, m.ULID.String())
	}
	for _, o := range j.Outputs {
		out.Results = append(out.Results, PlannedResult{Block: o.Meta.ULID.String(), Resolution: resolutionName(o.Meta.Resolution())})
	}
	return out
}

func toMark(marks []plan.Mark) []Noted {
	out := []Noted{}
	for _, m := range marks {
		out = append(out, Noted{Block: m.Block.String(), Why: m.Why})
	}
	return out
}

func idStrings(ids []ulid.ULID) []string {
	out := []string{}
	for _, id := range ids {
		out = append(out, id.String())
	}
	return out
}

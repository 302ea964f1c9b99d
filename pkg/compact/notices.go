package compact

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"

	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// notices remembers what the log was told of a plan, so that each thing is told
// once for as long as it lasts: which groups retention waits in, and why; which
// blocks are set aside, which groups left alone. Of the planner alone.
type notices struct {
	told map[string]bool
}

// maxNotices bounds the lines that one plan gives rise to. The status has all.
const maxNotices = 20

// notice is a line for the log.
type notice struct {
	msg  string
	args []any
	key  string // empty: all of it
}

// tell logs what is new in a plan.
func (n *notices) tell(log *slog.Logger, p *plan.Plan) {
	now := map[string]bool{}
	fresh := 0
	for _, l := range slices.Concat(heldNotices(p.Held), asideNotices(p.SetAside), restingNotices(p.Resting)) {
		key := cmp.Or(l.key, fmt.Sprint(l.msg, l.args))
		now[key] = true
		if n.told[key] {
			continue
		}
		if fresh++; fresh <= maxNotices {
			log.Warn(l.msg, l.args...)
		}
	}
	if fresh > maxNotices {
		log.Warn("more blocks and groups are held, set aside or left alone; the status has all", "more", fresh-maxNotices)
	}
	n.told = now
}

// heldNotices has one line for all blocks of a group that wait for the same. It
// doesn't say how many, which changes from day to day.
func heldNotices(held []plan.Held) (out []notice) {
	seen := map[string]bool{}
	for _, h := range held {
		if key := h.Group + " " + h.Why; !seen[key] {
			seen[key] = true
			out = append(out, notice{msg: "retention waits; blocks that have expired are kept", args: []any{"group", h.Group, "resolution", resolutionName(h.Resolution), "why", h.Why}})
		}
	}
	return out
}

func asideNotices(aside []plan.SetAside) (out []notice) {
	for _, a := range aside {
		if !a.ByOthers { // whoever marked it knows
			out = append(out, notice{msg: "block is left out of compaction", args: []any{"block", a.Block, "group", a.Group, "why", a.Why}})
		}
	}
	return out
}

func restingNotices(resting []plan.Resting) (out []notice) {
	for _, r := range resting {
		out = append(out, notice{ // each block of the other compactor makes it longer
			msg: "group is left alone", args: []any{"group", r.Group, "until", r.Until.UTC(), "why", r.Why}, key: "resting " + r.Group})
	}
	return out
}

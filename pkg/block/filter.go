package block

import (
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
)

// BlockIDLabel is the label by which a selector sees a block's ULID.
const BlockIDLabel = "__block_id"

// Selection tells Select which blocks to leave out. Its zero value leaves out none.
type Selection struct {
	MinTime, MaxTime         int64             // ms; both zero: all times
	Selector                 []*relabel.Config // over external labels and BlockIDLabel
	IgnoreLabels             []string          // external labels that the selector doesn't see
	ConsistencyDelay         time.Duration     // blocks visible for less are left out
	IgnoreDeletionMarksDelay time.Duration     // blocks marked for longer are left out
	IgnoreMarked             bool              // apply IgnoreDeletionMarksDelay, even if 0
	Deduplicate              bool              // leave out blocks whose sources another block has too
}

// Select returns v without the blocks that sel leaves out at the moment now. It
// asks in a fixed order, since each step sees only what the one before has left:
// time, selector, consistency delay, deletion marks, duplicates. It reads
// nothing and can't fail.
func Select(v View, sel Selection, now time.Time) View {
	out := v.clone()
	out.Dropped, out.LeftOut = map[Reason]int{}, map[ulid.ULID]*Meta{}
	for id, m := range v.Metas {
		if reason := sel.refuses(m, v.Marks[id], now); reason != "" {
			out.leaveOut(id, reason)
		}
	}
	if sel.Deduplicate {
		for _, id := range Duplicates(out.Metas) {
			out.leaveOut(id, DroppedDuplicate)
		}
	}
	return out
}

func (v *View) leaveOut(id ulid.ULID, reason Reason) {
	v.LeftOut[id] = v.Metas[id]
	delete(v.Metas, id)
	v.Dropped[reason]++
}

// refuses looks at one block by itself; "" keeps it.
func (sel *Selection) refuses(m *Meta, marks Marks, now time.Time) Reason {
	switch {
	case !sel.inTime(m):
		return DroppedTime
	case !selected(m, sel.Selector, sel.IgnoreLabels):
		return DroppedSelector
	case fresh(m, sel.ConsistencyDelay, now):
		return DroppedFresh
	case sel.IgnoreMarked && marks.Deletion != nil && marks.Deletion.age(now) >= sel.IgnoreDeletionMarksDelay:
		return DroppedMarked
	}
	return ""
}

func (sel *Selection) inTime(m *Meta) bool {
	if sel.MinTime == 0 && sel.MaxTime == 0 {
		return true
	}
	return m.Overlaps(sel.MinTime, sel.MaxTime)
}

// selected applies relabel rules to a block's labels but those to be ignored.
func selected(m *Meta, rules []*relabel.Config, ignore []string) bool {
	if len(rules) == 0 {
		return true
	}
	b := labels.NewBuilder(m.Labels())
	b.Del(ignore...)
	b.Set(BlockIDLabel, m.ULID.String())
	return relabel.ProcessBuilder(b, rules...)
}

// fresh tells whether a block became visible less than delay ago. Blocks that
// replace others are exempt: they hold nothing new, and their sources may go.
func fresh(m *Meta, delay time.Duration, now time.Time) bool {
	if delay <= 0 {
		return false // even where an uploader's clock is ahead of ours
	}
	switch m.Thanos.Source {
	case SourceCompactor, SourceCompactorRepair, SourceBucketRepair:
		return false
	}
	return now.Sub(m.Uploaded()) < delay
}

// age is how long ago a block was marked.
func (m *DeletionMark) age(now time.Time) time.Duration { return now.Sub(time.Unix(m.DeletionTime, 0)) }

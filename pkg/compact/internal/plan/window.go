package plan

import (
	"fmt"
	"time"

	"github.com/prometheus/common/model"
)

// window is a range of time, aligned to its length where it is one of a level. ms.
type window struct{ from, to int64 }

// aligned returns the window of a length that t lies in.
func aligned(t, length int64) window {
	from := t / length * length
	if t < from {
		from -= length
	}
	return window{from, from + length}
}

// around returns the shortest aligned window that holds all of w, or of several
// windows side by side.
func around(w window, length int64) window {
	return window{aligned(w.from, length).from, aligned(max(w.from, w.to-1), length).to}
}

func (w window) length() int64 { return w.to - w.from }

// holds tells whether a block lies in the window.
func (w window) holds(e *entry) bool { return w.from <= e.meta.MinTime && e.meta.MaxTime <= w.to }

// overlaps tells whether a block has a part in the window.
func (w window) overlaps(e *entry) bool { return e.meta.MinTime < w.to && w.from < e.meta.MaxTime }

// due tells whether nothing more is to be expected for a window: its time is
// over, and newer data has come, or none for so long that none need be waited for.
// A coarser tier also waits for what the finer one still has for it.
func (p *planner) due(t *tier, w window) bool {
	if p.now < w.to || t.family.newest < w.to && p.now < w.to+p.cfg.SettleDelay {
		return false
	}
	for _, e := range t.pending {
		if w.overlaps(e) {
			return false
		}
	}
	return true
}

// findPending notes for each tier which blocks of the finer one are to come into
// it, and can.
func (p *planner) findPending(f *family) {
	if !p.cfg.Downsample {
		return
	}
	for _, t := range f.tiers {
		to := t.coarser()
		if to == nil {
			continue
		}
		for _, e := range t.live {
			if !e.garbage && !e.expired && e.marks.NoDownsample == nil && p.wants(e, to) {
				to.pending = append(to.pending, e)
			}
		}
	}
}

// inWindows sorts blocks, which are in order of time, into the windows of a
// length. Those that no window holds are left out.
func inWindows(blocks []*entry, length int64) (windows []window, held [][]*entry) {
	for _, e := range blocks {
		w := aligned(e.meta.MinTime, length)
		if !w.holds(e) {
			continue
		}
		if n := len(windows); n == 0 || windows[n-1] != w {
			windows, held = append(windows, w), append(held, nil)
		}
		n := len(held) - 1
		held[n] = append(held[n], e)
	}
	return windows, held
}

// clock writes a time in ms for people.
func clock(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04") }

// String writes a window for people: the day once, where it is one.
func (w window) String() string {
	to := time.UnixMilli(w.to).UTC()
	if time.UnixMilli(w.from).UTC().Truncate(24*time.Hour) == to.Truncate(24*time.Hour) {
		return fmt.Sprintf("%s–%s", clock(w.from), to.Format("15:04"))
	}
	return fmt.Sprintf("%s – %s", clock(w.from), clock(w.to))
}

func duration(ms int64) string { return model.Duration(time.Duration(ms) * time.Millisecond).String() }

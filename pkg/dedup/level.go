package dedup

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
)

// level keeps a merge of corrected counters from going down: those of replicas
// differ by the resets that each has not seen, so moving from one to another
// would look like a reset. A replica that lies too low is raised by what it has
// missed, from the move on.
type level struct {
	v float64                   // greatest value so far
	h *histogram.FloatHistogram // last histogram of a counter; nil: none, or what came since is none
}

// missed is what has to be added to a replica. The zero value is nothing.
type missed struct {
	v float64
	h *histogram.FloatHistogram
}

// float returns v of a replica, raised; NaN stay what they are.
func (l *level) float(v float64, m *missed) float64 {
	if math.IsNaN(v) {
		return v
	}
	m.v += max(0, l.v-(v+m.v))
	l.v, l.h = max(l.v, v+m.v), nil // The sum may be rounded to less.
	return l.v
}

// histogram returns h of a replica, raised; moved tells whether the sample before
// came from another one. It may return h itself and leaves it as it is. Gauges and
// stale markers stay what they are.
func (l *level) histogram(h *histogram.FloatHistogram, m *missed, moved bool) (*histogram.FloatHistogram, error) {
	if value.IsStaleNaN(h.Sum) {
		return h, nil
	}
	l.v = 0
	if h.CounterResetHint == histogram.GaugeType {
		l.h = nil
		return h, nil
	}
	if l.h == nil || l.h.UsesCustomBuckets() != h.UsesCustomBuckets() {
		m.h, l.h = nil, nil // Another counter begins.
	}
	out, err := m.added(h)
	if err != nil {
		return nil, err
	}
	if l.h != nil && (moved || m.h != nil) && out.DetectReset(l.h) {
		if out, err = l.raise(h, m); err != nil {
			return nil, err
		}
	}
	if l.h == nil {
		l.h = &histogram.FloatHistogram{}
	}
	out.CopyTo(l.h)
	return out, nil
}

// raise sets m so that h comes to where the last histogram was.
func (l *level) raise(h *histogram.FloatHistogram, m *missed) (*histogram.FloatHistogram, error) {
	lack := l.h.Copy()
	if _, _, _, err := lack.Sub(h); err != nil {
		return nil, fmt.Errorf("raise histogram: %w", err)
	}
	m.h = lack
	out, err := m.added(h)
	if err == nil && out.DetectReset(l.h) { // Rounded to less.
		out = l.h.Copy()
	}
	return out, err
}

// added returns h with what was missed.
func (m *missed) added(h *histogram.FloatHistogram) (*histogram.FloatHistogram, error) {
	if m.h == nil {
		return h, nil
	}
	out := h.Copy()
	if _, _, _, err := out.Add(m.h); err != nil {
		return nil, fmt.Errorf("raise histogram: %w", err)
	}
	out.CounterResetHint = histogram.UnknownCounterReset
	return out, nil
}

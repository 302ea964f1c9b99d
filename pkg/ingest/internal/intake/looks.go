package intake

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

const (
	// looksEach is how many series of a request are looked at for the values of their labels,
	// lookEvery how often that is done for a tenant: some 80 looks a second at most, since
	// to make labels costs more than all else of a series that is known.
	looksEach = 8
	lookEvery = 100 * time.Millisecond
	// maxValues bounds the values that are counted between two sweeps: what is sent much is seen early.
	maxValues = 1000
	// maxValueBytes is how long a label may be to be counted.
	maxValueBytes = 256
	// keptValues is how many are known until the next sweep.
	keptValues = 100
)

// LabelRate is what is sent with one value of a label, the metric's name apart.
type LabelRate struct {
	Label            string  `json:"label"`
	Value            string  `json:"value"`
	SamplesPerSecond float64 `json:"samples_per_second"` // an estimate: few series are looked at
}

// looks estimate how many samples a second of a tenant have which values of labels. A
// look is worth all the samples since the one before, so that what is sent
// rarely counts as it should.
type looks struct {
	since atomic.Int64 // samples that no look stands for yet
	next  atomic.Int64 // ns; not before
	turn  atomic.Uint32

	mu struct {
		sync.Mutex
		seen map[labels.Label]float64 // samples since the last sweep
		top  []LabelRate              // as of the last sweep, the highest first
	}
}

// look looks at some series of a request that are taken.
func (l *looks) look(b *batch.Batch, p *Part, now time.Time) {
	since := l.since.Add(int64(p.Samples))
	next := l.next.Load()
	if len(p.Series) == 0 || since == 0 || now.UnixNano() < next || !l.next.CompareAndSwap(next, now.Add(lookEvery).UnixNano()) {
		return
	}
	l.since.Add(-since)
	n, k := uint64(len(p.Series)), uint64(min(looksEach, len(p.Series)))
	first := uint64(l.turn.Add(1)*2654435769) * n >> 32 // goes round by the golden ratio: no order makes some never count
	series := make([]uint32, k)
	for i := range k {
		series[i] = p.Series[(first+i*n/k)%n]
	}
	slices.Sort(series) // labels of OTLP are made in this order
	total := 0
	for _, i := range series {
		total += samplesOf(&b.Series[i])
	}
	for _, i := range series {
		if ls, err := b.Labels(int(i)); err == nil && total > 0 {
			l.add(ls, float64(since)*float64(samplesOf(&b.Series[i]))/float64(total))
		}
	}
}

// add counts samples for the labels of a series.
func (l *looks) add(ls labels.Labels, samples float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.seen == nil {
		l.mu.seen = map[labels.Label]float64{}
	}
	ls.Range(func(x labels.Label) {
		if x.Name == model.MetricNameLabel || len(x.Name)+len(x.Value) > maxValueBytes {
			return
		}
		_, known := l.mu.seen[x]
		if !known && len(l.mu.seen) >= maxValues {
			return
		}
		if !known {
			x = labels.Label{Name: strings.Clone(x.Name), Value: strings.Clone(x.Value)} // not the whole series'
		}
		l.mu.seen[x] += samples
	})
}

// sweep begins anew and keeps what was seen.
func (l *looks) sweep(seconds float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.top = l.mu.top[:0]
	if seconds > 0 {
		for x, samples := range l.mu.seen {
			l.mu.top = append(l.mu.top, LabelRate{x.Name, x.Value, samples / seconds})
		}
	}
	slices.SortFunc(l.mu.top, byLabelRate)
	l.mu.top = slices.Clip(slices.Clone(l.mu.top[:min(keptValues, len(l.mu.top))]))
	l.mu.seen = nil
}

// rates are those of the last sweep.
func (l *looks) rates() []LabelRate {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.mu.top)
}

func byLabelRate(x, y LabelRate) int {
	return cmp.Or(cmp.Compare(y.SamplesPerSecond, x.SamplesPerSecond), cmp.Compare(x.Label, y.Label), cmp.Compare(x.Value, y.Value))
}

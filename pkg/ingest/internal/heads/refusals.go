package heads

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// sample is a float, or a histogram where H or FH is set.
type sample struct {
	ST, T int64 // ms
	V     float64
	H     *histogram.Histogram
	FH    *histogram.FloatHistogram
}

// appendingSeries is one series of a Write on its way into the head.
type appendingSeries struct {
	*appending
	n       uint32
	ref     storage.SeriesRef
	lset    labels.Labels // set once the batch was asked for them
	defined bool
	over    bool // nothing more of it can be taken

	last sample // taken last
	any  bool   // last is set
}

// define asks the batch for the labels of a series that the head doesn't know.
func (s *appendingSeries) define() bool {
	err := batch.ErrNoLabels
	if s.b.Labels != nil {
		s.lset, err = s.b.Labels(int(s.n))
	}
	switch {
	case errors.Is(err, batch.ErrNoLabels):
		s.result.Unknown = append(s.result.Unknown, s.n)
		s.over = true
	case err != nil:
		s.giveUp(refuse.BadLabels, err.Error)
	default:
		s.defined = true
	}
	return s.defined
}

// giveUp refuses all samples of the series.
func (s *appendingSeries) giveUp(r refuse.Reason, detail func() string) {
	series := &s.b.Series[s.n]
	s.refuse(r, series.Floats.Len()+series.Histograms.Len(), detail)
	s.over = true
}

// sample appends one sample. Refused, it is in the result.
func (s *appendingSeries) sample(smp sample) error {
	if smp.T > s.latest {
		s.refuse(refuse.SampleTooFarInTime, 1, func() string {
			return fmt.Sprintf("series %s: sample at %s is more than %s ahead of this ingester's clock (%s)", s.name(), at(smp.T), s.head.heads.cfg.TooFarAhead, flagTooFar)
		})
		return nil
	}
	if s.any && smp.T <= s.last.T && s.disorder(smp) {
		return nil
	}
	if !s.head.startTimestamps {
		smp.ST = 0
	}
	ref, err := s.offer(smp)
	if err != nil && !s.defined && errors.Is(err, tsdb.ErrInvalidSample) {
		// The head does not know the reference: its series had no samples for long.
		if !s.define() {
			return nil
		}
		ref, err = s.offer(smp)
	}
	if err != nil {
		return s.refused(smp, err)
	}
	s.ref, s.last, s.any = ref, smp, true
	if s.doubtful(smp) {
		s.doubts = append(s.doubts, doubt{ref, smp.T})
	}
	return nil
}

func (s *appendingSeries) offer(smp sample) (storage.SeriesRef, error) {
	return s.app.Append(s.ref, s.lset, smp.ST, smp.T, smp.V, smp.H, smp.FH, storage.AOptions{})
}

// disorder judges a sample that is not newer than the one before it in the same
// write, which the head would only see at the commit. False: it may be offered.
func (s *appendingSeries) disorder(smp sample) bool {
	switch {
	case smp.T < s.last.T && s.head.window.Load() > 0:
		return false
	case smp.T < s.last.T:
		s.refuse(refuse.SampleOutOfOrder, 1, func() string { return s.tooLate(smp) })
	case smp.H == nil && smp.FH == nil && s.last.H == nil && s.last.FH == nil && math.Float64bits(smp.V) == math.Float64bits(s.last.V):
		// The same once more.
	case smp.H != nil && s.last.H != nil && smp.H.Equals(s.last.H), smp.FH != nil && s.last.FH != nil && smp.FH.Equals(s.last.FH):
	default:
		s.refuse(refuse.SampleDuplicate, 1, func() string { return s.duplicate(smp) })
	}
	return true
}

// refused puts the TSDB's refusal into the result. What it should not have refused is an error.
func (s *appendingSeries) refused(smp sample, err error) error {
	full, isFull := errors.AsType[*fullError](err)
	switch {
	case isFull:
		s.giveUp(full.reason, func() string { return s.tooMany(full) })
	case errors.Is(err, storage.ErrOutOfOrderSample):
		s.head.ledgerOf(smp).rejected.Add(1)
		s.refuse(refuse.SampleOutOfOrder, 1, func() string { return s.tooLate(smp) })
	case errors.Is(err, storage.ErrTooOldSample), errors.Is(err, storage.ErrOutOfBounds):
		s.head.ledgerOf(smp).rejected.Add(1)
		s.refuse(refuse.SampleTooOld, 1, func() string { return s.tooOld(smp) })
	case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		s.refuse(refuse.SampleDuplicate, 1, func() string { return s.duplicate(smp) })
	case errors.Is(err, tsdb.ErrInvalidSample):
		s.giveUp(refuse.BadLabels, func() string { return fmt.Sprintf("series %s: %s", s.name(), err) })
	case smp.H != nil || smp.FH != nil:
		s.refuse(refuse.BadHistogram, 1, func() string { return fmt.Sprintf("series %s: histogram at %s: %s", s.name(), at(smp.T), err) })
	default:
		return unavailable(s.head.id, fmt.Errorf("append to series %s: %w", s.name(), err))
	}
	return nil
}

// refuse counts samples refused. Of a reason only the first refusal in a write
// is told in full: ten thousand texts would cost more than the samples.
func (s *appendingSeries) refuse(r refuse.Reason, samples int, detail func() string) {
	list := s.result.Refused
	for i := len(list) - 1; i >= 0 && list[i].Series == s.n; i-- {
		if list[i].Err.Reason == r {
			list[i].Samples += samples
			return
		}
	}
	err := s.shared[r]
	if err == nil {
		id := s.head.id
		err = refuse.Errorf(r, id, "tenant %s: %s", id, detail())
		if s.shared == nil {
			s.shared = map[refuse.Reason]*refuse.Error{}
		}
		s.shared[r] = refuse.Errorf(r, id, "tenant %s: as another series of the same write", id)
	}
	s.result.Refused = append(list, batch.Refused{Series: s.n, Samples: samples, Err: err})
}

// name is how texts call the series.
func (s *appendingSeries) name() string {
	if s.defined {
		return s.lset.String()
	}
	if s.b.Labels != nil {
		if lset, err := s.b.Labels(int(s.n)); err == nil {
			return lset.String()
		}
	}
	if ix, err := s.head.db.Head().Index(); err == nil {
		defer ix.Close()
		var b labels.ScratchBuilder
		if ix.Series(s.ref, &b, nil) == nil {
			return b.Labels().String()
		}
	}
	return fmt.Sprintf("number %d", s.b.Series[s.n].ID)
}

func (s *appendingSeries) tooLate(smp sample) string {
	return fmt.Sprintf("series %s: sample at %s is older than its newest one, and the out-of-order window is 0 (out_of_order_window of the tenant, else --tsdb.out-of-order.time-window)", s.name(), at(smp.T))
}

func (s *appendingSeries) tooOld(smp sample) string {
	newest := at(s.head.db.Head().MaxTime())
	if window := time.Duration(s.head.window.Load()) * time.Millisecond; window > 0 {
		return fmt.Sprintf("series %s: sample at %s is older than the tenant's newest, at %s, by more than the out-of-order window of %s (out_of_order_window of the tenant, else --tsdb.out-of-order.time-window)", s.name(), at(smp.T), newest, window)
	}
	return fmt.Sprintf("series %s: sample at %s is of a time already cut into a block, the tenant's newest is at %s, and the out-of-order window is 0 (out_of_order_window of the tenant, else --tsdb.out-of-order.time-window)", s.name(), at(smp.T), newest)
}

func (s *appendingSeries) duplicate(smp sample) string {
	return fmt.Sprintf("series %s: it has another value at %s already", s.name(), at(smp.T))
}

func (s *appendingSeries) tooMany(e *fullError) string {
	if e.crowded != nil {
		return fmt.Sprintf("series %s is one too many: %s; series that are there go on%s", s.name(), e.crowded, s.head.widest())
	}
	if e.reason == refuse.MetricSeriesLimit {
		return fmt.Sprintf("series %s is one too many of metric %s, which has %d, the most it may have (max_series_per_metric of the tenant); series that are there go on%s", s.name(), e.metric, e.limit, s.head.widest())
	}
	return fmt.Sprintf("series %s is one too many: the tenant has %d, the most it may have (head_series_limit of the tenant); series that are there go on%s", s.name(), e.limit, s.head.widest())
}

// at shows a sample's time.
func at(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }

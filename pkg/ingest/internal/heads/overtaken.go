package heads

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// The TSDB looks at a sample when it is offered, and once more at the commit. If another
// write brought newer samples of the same series in between, it leaves the older one
// out without a word. Its counters tell of floats. Of histograms they tell too much,
// since one that is sent again counts as out of order, and too little: where there is
// an out-of-order window, those that are older than it are not counted. So histograms
// that may have been left out are read back.

// ledger compares what the TSDB counts of samples that it leaves out with what it refused
// when they were offered: the difference was left out at commits.
//
// Invariant: settled is never above that difference. Were it, the next sample that is
// left out would not be noticed, and be acknowledged.
type ledger struct {
	counters []prometheus.Counter
	rejected atomic.Int64 // refused and counted when they were offered
	settled  atomic.Int64 // known to have been left out at commits
}

// open takes the counters of a kind of samples, which may have counted in an earlier opening.
func (l *ledger) open(vecs []*prometheus.CounterVec, kind string) {
	l.counters = nil
	for _, vec := range vecs {
		l.counters = append(l.counters, vec.WithLabelValues(kind))
	}
	l.rejected.Store(l.counted())
}

func (l *ledger) counted() int64 {
	sum := 0.0
	for _, c := range l.counters {
		sum += counterValue(c)
	}
	return int64(sum)
}

// now is the number of samples left out at commits, and more while samples are offered.
func (l *ledger) now() int64 {
	rejected := l.rejected.Load() // first: it only grows
	return l.counted() - rejected
}

// droppedSince tells whether any commit has left samples out since settled was
// read. The TSDB's counters move an instant before ours when a sample is refused
// that was offered, so a difference is looked at again when nobody offers any.
func (h *head) droppedSince(l *ledger, settled int64) bool {
	if l.now() == settled {
		return false
	}
	h.offering.Lock()
	defer h.offering.Unlock()
	now := l.now()
	l.settled.Store(now)
	return now != settled
}

// ledgerOf is the ledger of a sample's kind.
func (h *head) ledgerOf(smp sample) *ledger {
	if smp.H == nil && smp.FH == nil {
		return &h.floats
	}
	return &h.histograms
}

// doubt is a sample that the TSDB took when it was offered, and of which its
// counters do not tell whether it is still there after the commit.
type doubt struct {
	ref storage.SeriesRef
	t   int64
}

// doubtful tells whether a sample that was taken is to be read back after the commit: always
// if there is a window, and if there is none when something was left out.
func (s *appendingSeries) doubtful(smp sample) bool {
	// A float that ends a series of histograms becomes one of them at the commit.
	if smp.H == nil && smp.FH == nil && !value.IsStaleNaN(smp.V) {
		return false
	}
	window := s.head.window.Load()
	return window == 0 || smp.T < s.head.db.Head().MaxTime()-window // else it is put among those out of order
}

// leftOut tells whether samples of a Write that was committed are not there. Floats may be another Write's.
func (a *appending) leftOut() (bool, error) {
	h := a.head
	if h.droppedSince(&h.floats, a.settledFloats) {
		return true, nil
	}
	if len(a.doubts) == 0 || h.window.Load() == 0 && !h.droppedSince(&h.histograms, a.settledHistograms) {
		return false, nil
	}
	there, err := holds(h.db.Head(), a.doubts)
	return !there, err
}

// holds tells whether all these samples are in the head, in the order of time.
func holds(hd *tsdb.Head, samples []doubt) (bool, error) {
	ix, err := hd.Index()
	if err != nil {
		return false, fmt.Errorf("read back what was written: %w", err)
	}
	defer ix.Close()
	cr, err := hd.Chunks()
	if err != nil {
		return false, fmt.Errorf("read back what was written: %w", err)
	}
	defer cr.Close()
	var (
		b     labels.ScratchBuilder
		metas []chunks.Meta
		it    chunkenc.Iterator
	)
	for _, s := range samples {
		if err := ix.Series(s.ref, &b, &metas); err != nil {
			return false, ignoreNotFound(err)
		}
		n := slices.IndexFunc(metas, func(m chunks.Meta) bool { return m.MinTime <= s.t && s.t <= m.MaxTime })
		if n < 0 {
			return false, nil
		}
		chk, _, err := cr.ChunkOrIterable(metas[n])
		if err != nil {
			return false, ignoreNotFound(err)
		}
		it = chk.Iterator(it)
		if it.Seek(s.t) == chunkenc.ValNone || it.AtT() != s.t {
			return false, it.Err()
		}
	}
	return true, nil
}

// ignoreNotFound passes over what was truncated meanwhile.
func ignoreNotFound(err error) error {
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	return fmt.Errorf("read back what was written: %w", err)
}

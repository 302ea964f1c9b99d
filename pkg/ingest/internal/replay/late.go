package replay

import (
	"log/slog"
	"path/filepath"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
)

// checkLate makes sure that the log of out-of-order samples, which the TSDB reads
// itself, means with what was done here what it meant before:
//
//   - It must not speak of series by their older references, which the TSDB does not
//     hear of any more.
//   - When a chunk of late samples goes to the head chunk files, a mark in the log says
//     so, and that the samples before it are not needed. A crash may lose the chunk and keep the
//     mark. The TSDB takes the mark for wrong if it points behind all chunks, so nothing may have been added behind.
func (p *replaying) checkLate() error {
	if len(p.series.aliases) == 0 && p.chunks.mu.added == 0 {
		return nil
	}
	l := lateRecords{replaying: p, dec: record.NewDecoder(labels.NewSymbolTable(), slog.New(slog.DiscardHandler))}
	return eachLogged(filepath.Join(p.dir, wblDir), 0, l.check)
}

// lateRecords are those of the log of out-of-order samples.
type lateRecords struct {
	*replaying
	dec record.Decoder
}

func (l *lateRecords) check(rec []byte) error {
	switch l.dec.Type(rec) {
	case record.MmapMarkers:
		marks, err := l.dec.MmapMarkers(rec, nil)
		if err != nil {
			return err
		}
		for _, m := range marks {
			if l.chunks.mu.added > 0 && m.MmapRef.GreaterThan(l.chunks.newest) {
				return unsure("a chunk of late samples of series %d is lost", m.Ref)
			}
		}
		return nil
	case record.Samples, record.SamplesV2:
		list, err := l.dec.Samples(rec, nil)
		return l.checkRefs(len(list), func(i int) chunks.HeadSeriesRef { return list[i].Ref }, err)
	case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
		list, err := l.dec.HistogramSamples(rec, nil)
		return l.checkRefs(len(list), func(i int) chunks.HeadSeriesRef { return list[i].Ref }, err)
	case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
		list, err := l.dec.FloatHistogramSamples(rec, nil)
		return l.checkRefs(len(list), func(i int) chunks.HeadSeriesRef { return list[i].Ref }, err)
	}
	return nil
}

// checkRefs looks at the series of n samples, which were decoded with err.
func (l *lateRecords) checkRefs(n int, ref func(int) chunks.HeadSeriesRef, err error) error {
	if err != nil {
		return err
	}
	for i := range n {
		if _, old := l.series.aliases[ref(i)]; old {
			return unsure("series %d has another reference now, and late samples", ref(i))
		}
	}
	return nil
}

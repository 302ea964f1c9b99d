package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/firnline/firnline/pkg/query/internal/querier"
)

// newReadHandler answers remote reads, by samples or by streamed chunks. Replicas
// are deduplicated. The protocol has no place for warnings, so that partial
// answers are refused, and none for negotiating chunk encodings, so that start
// timestamps, which only new ones hold, are left out.
func newReadHandler(cfg Config, data querier.Factory, replicas []string, log *slog.Logger, reg prometheus.Registerer) http.Handler {
	from := readData{data.Queryable(querier.Options{Dedup: true, ReplicaLabels: replicas})}
	return withReadStatus(remote.NewReadHandler(log, reg, from, func() config.Config { return config.Config{} },
		cfg.ReadSampleLimit, cfg.ReadConcurrentLimit, cfg.ReadMaxFrameBytes))
}

// readData makes samples, and chunks encoded from them, of a Queryable.
type readData struct{ data storage.Queryable }

// Querier returns a querier of samples.
func (d readData) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := d.data.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	return sampleQuerier{q}, nil
}

// ChunkQuerier returns a querier of chunks.
func (d readData) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := d.data.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	return chunkQuerier{q}, nil
}

type sampleQuerier struct{ storage.Querier }

func (q sampleQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	return wholeSet{q.Querier.Select(ctx, sorted, hints, matchers...), ctx}
}

type chunkQuerier struct{ storage.Querier }

func (q chunkQuerier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.ChunkSeriesSet {
	return storage.NewSeriesSetToChunkSet(wholeSet{q.Querier.Select(ctx, true, hints, matchers...), ctx})
}

// wholeSet turns a set's warnings about missing data into errors, and hides start timestamps.
// Its context is that of the request whose failure it notes.
type wholeSet struct {
	storage.SeriesSet
	ctx context.Context
}

func (s wholeSet) At() storage.Series { return plainSeries{s.SeriesSet.At()} }

func (s wholeSet) Err() error {
	err := s.SeriesSet.Err()
	if err == nil {
		err = firstWarning(s.SeriesSet.Warnings())
	}
	noteFailure(s.ctx, err)
	return err
}

func firstWarning(notes annotations.Annotations) error {
	for _, w := range notes {
		if !errors.Is(w, annotations.PromQLInfo) {
			return w
		}
	}
	return nil
}

type plainSeries struct{ storage.Series }

func (s plainSeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	if p, ok := it.(plainIterator); ok {
		it = p.Iterator
	}
	return plainIterator{s.Series.Iterator(it)}
}

type plainIterator struct{ chunkenc.Iterator }

// AtST says that there is no start timestamp.
func (plainIterator) AtST() int64 { return 0 }

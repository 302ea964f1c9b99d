package tools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/tsdb/fileutil"
)

// sample is a float or a histogram.
type sample struct {
	f float64
	h *histogram.FloatHistogram
}

// OpenMetrics makes blocks in dir of a file in the OpenMetrics text format, of
// which every sample must have a time. It reads the file once for each block of
// two hours, so that memory holds one block.
func OpenMetrics(ctx context.Context, path, dir string, log *slog.Logger) (out Imported, err error) {
	file, err := fileutil.OpenMmapFile(path)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	windows := map[int64]bool{}
	err = eachSample(file.Bytes(), func(_ labels.Labels, t int64, _ float64) error {
		windows[windowOf(t)] = true
		return ctx.Err()
	})
	if err != nil {
		return out, fmt.Errorf("%s: %w", path, err)
	}
	for _, window := range slices.Sorted(maps.Keys(windows)) {
		b := &blocks{dir: dir, log: log, told: &out}
		if err := b.begin(ctx, window); err != nil {
			return out, err
		}
		err := eachSample(file.Bytes(), func(lset labels.Labels, t int64, v float64) error {
			if windowOf(t) != window {
				return nil
			}
			return b.add(ctx, lset, t, sample{f: v})
		})
		if err := errors.Join(err, b.end(ctx)); err != nil {
			return out, fmt.Errorf("%s: %w", path, err)
		}
	}
	return out, nil
}

// ErrNoTime refuses a sample without a time, which could be from whenever.
var ErrNoTime = errors.New("sample without a timestamp")

// eachSample calls do for each sample of a text.
func eachSample(text []byte, do func(lset labels.Labels, t int64, v float64) error) error {
	p := textparse.NewOpenMetricsParser(text, labels.NewSymbolTable())
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if entry != textparse.EntrySeries {
			continue
		}
		var lset labels.Labels
		p.Labels(&lset)
		_, ts, v := p.Series()
		if ts == nil {
			return fmt.Errorf("%s: %w", lset, ErrNoTime)
		}
		if err := do(lset, *ts, v); err != nil {
			return err
		}
	}
}

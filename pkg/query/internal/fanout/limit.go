package fanout

import (
	"encoding/binary"
	"fmt"

	"github.com/firnline/firnline/pkg/storeapi"
)

// limiter counts the series and samples of one answer. Not safe for concurrent use.
type limiter struct {
	maxSeries, maxSamples int // 0: no limit
	series, samples       int
}

func newLimiter(cfg Config) *limiter {
	return &limiter{maxSeries: cfg.SeriesLimit, maxSamples: cfg.SampleLimit}
}

// count adds a series, or refuses it.
func (l *limiter) count(s storeapi.Series) error {
	if l.series++; l.maxSeries > 0 && l.series > l.maxSeries {
		return fmt.Errorf("%w: the selection returns more than %d series (--store.limits.request-series); add a matcher or raise the limit", storeapi.ErrLimit, l.maxSeries)
	}
	if l.maxSamples == 0 {
		return nil
	}
	for i := range s.Chunks {
		l.samples += numSamples(&s.Chunks[i])
	}
	if l.samples > l.maxSamples {
		return fmt.Errorf("%w: the selection returns more than %d samples (--store.limits.request-samples); shorten the range, add a matcher or raise the limit", storeapi.ErrLimit, l.maxSamples)
	}
	return nil
}

// numSamples reads the number of samples that each TSDB chunk begins with; of
// aggregates it is that of the sub-chunk with the most.
func numSamples(c *storeapi.Chunk) int {
	of := func(d storeapi.Data) int {
		if len(d.Bytes) < 2 {
			return 0
		}
		return int(binary.BigEndian.Uint16(d.Bytes))
	}
	if c.Aggr == nil {
		return of(c.Raw)
	}
	a := c.Aggr
	return max(of(a.Count), of(a.Sum), of(a.Min), of(a.Max), of(a.Counter))
}

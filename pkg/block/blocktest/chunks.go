package blocktest

import (
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// Chunks encodes samples, in order of time, into chunks of at most
// opts.SamplesPerChunk samples. A change of kind, and a histogram that does not
// fit the chunk before it, start a new chunk.
func Chunks(tb testing.TB, samples []Sample, opts Options) []chunks.Meta {
	tb.Helper()
	limit := opts.SamplesPerChunk
	if limit == 0 {
		limit = 120
	}
	c := cutter{limit: limit, opts: opts}
	for _, s := range samples {
		noError(tb, c.add(s))
	}
	return c.out
}

// cutter appends samples to the last chunk of out or cuts a new one.
type cutter struct {
	limit int
	opts  Options
	out   []chunks.Meta
	app   chunkenc.Appender
}

func (c *cutter) add(s Sample) error {
	enc := c.encoding(s)
	st := s.ST
	if !c.opts.StartTimestamps {
		st = 0
	}
	if c.last() == nil || c.last().Chunk.Encoding() != enc || c.last().Chunk.NumSamples() >= c.limit {
		if err := c.cut(enc); err != nil {
			return err
		}
		c.last().MinTime = s.T
	}
	switch {
	case s.H != nil:
		fresh, recoded, app, err := c.app.AppendHistogram(nil, st, s.T, s.H, false)
		if err != nil {
			return err
		}
		c.take(fresh, recoded, s.T)
		c.app = app
	case s.FH != nil:
		fresh, recoded, app, err := c.app.AppendFloatHistogram(nil, st, s.T, s.FH, false)
		if err != nil {
			return err
		}
		c.take(fresh, recoded, s.T)
		c.app = app
	default:
		c.app.Append(st, s.T, s.F)
	}
	c.last().MaxTime = s.T
	return nil
}

// take puts a chunk that an append has made in place of the last one or behind it.
func (c *cutter) take(fresh chunkenc.Chunk, recoded bool, t int64) {
	switch {
	case fresh == nil:
	case recoded:
		c.last().Chunk = fresh
	default:
		c.out = append(c.out, chunks.Meta{Chunk: fresh, MinTime: t})
	}
}

func (c *cutter) cut(enc chunkenc.Encoding) error {
	chunk, err := chunkenc.NewEmptyChunk(enc)
	if err != nil {
		return err
	}
	if c.app, err = chunk.Appender(); err != nil {
		return err
	}
	c.out = append(c.out, chunks.Meta{Chunk: chunk})
	return nil
}

func (c *cutter) last() *chunks.Meta {
	if len(c.out) == 0 {
		return nil
	}
	return &c.out[len(c.out)-1]
}

func (c *cutter) encoding(s Sample) chunkenc.Encoding {
	kind := chunkenc.ValFloat
	switch {
	case s.H != nil:
		kind = chunkenc.ValHistogram
	case s.FH != nil:
		kind = chunkenc.ValFloatHistogram
	}
	return kind.ChunkEncoding(c.opts.XOR2 || c.opts.StartTimestamps, c.opts.StartTimestamps)
}

package replay

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// Chunks end where the TSDB would end them, or nearly so: when a quarter of one is
// full, its end is guessed such that all up to the end of the range are about
// equally long.

// float appends a sample that is newer than all of its series before.
func (p *replaying) float(ref chunks.HeadSeriesRef, s *place, st, t int64, v float64) {
	if value.IsStaleNaN(v) {
		// As at its commit: the end of a series of histograms is a histogram.
		switch p.newestType(ref, s) {
		case chunkenc.ValHistogram:
			p.histogram(ref, s, st, t, &histogram.Histogram{Sum: v}, nil)
			return
		case chunkenc.ValFloatHistogram:
			p.histogram(ref, s, st, t, nil, &histogram.FloatHistogram{Sum: v})
			return
		}
	}
	if !s.open() || valueType(s.encoding()) != chunkenc.ValFloat || s.size() > chunkenc.MaxBytesPerXORChunkBeforeAppend {
		p.cut(ref, s, t, p.cfg.Floats)
	}
	n := s.samples()
	if n == p.cfg.SamplesPerChunk/4 {
		s.nextAt = guessEnd(s.mint, s.last, s.nextAt, 4)
	}
	if t >= s.nextAt || n >= 2*p.cfg.SamplesPerChunk {
		p.cut(ref, s, t, p.cfg.Floats)
	}
	if c := s.other; c != nil {
		c.app.Append(st, t, v)
		c.v = v
	} else {
		s.floats.append(s.last, t, v)
	}
	s.last = t
	p.stats.Encoded++
}

// histogram appends one of the two, which is newer than all of its series before.
func (p *replaying) histogram(ref chunks.HeadSeriesRef, s *place, st, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) {
	enc := p.cfg.Histograms
	if fh != nil {
		enc = p.cfg.FloatHistograms
	}
	var before chunkenc.Appender // tells whether a counter was reset between two chunks
	if s.other != nil {
		before = s.other.app
	}
	cut := !s.open() || s.encoding() != enc
	if cut {
		p.cut(ref, s, t, enc)
	}
	if p.histogramsEnd(s, t) {
		p.cut(ref, s, t, enc)
		cut = true
	}
	if !cut {
		before = nil
	}
	c := s.other
	var next chunkenc.Chunk
	var recoded bool
	// They don't fail: a chunk that does not fit is not an error, but another chunk.
	if h != nil {
		next, recoded, c.app, _ = c.app.AppendHistogram(before, st, t, h, false)
	} else {
		next, recoded, c.app, _ = c.app.AppendFloatHistogram(before, st, t, fh, false)
	}
	switch {
	case recoded:
		c.Chunk = next
	case next != nil:
		p.keep(ref, s)
		c.Chunk, c.endGuessed = next, false
		s.mint, s.nextAt = t, rangeEnd(t, p.cfg.ChunkRange)
	}
	c.h, c.fh = h, fh
	s.last = t
	p.stats.Encoded++
}

// histogramsEnd tells whether a chunk of histograms is full: they vary in size, so
// it goes by bytes, but for a least number of samples.
func (p *replaying) histogramsEnd(s *place, t int64) bool {
	n, size := s.samples(), s.size()
	end := s.nextAt
	if s.other.endGuessed {
		end = rangeEnd(s.mint, p.cfg.ChunkRange)
	} else if n > 0 && size >= chunkenc.TargetBytesPerHistogramChunk/4 {
		s.nextAt = guessEnd(s.mint, s.last, s.nextAt, chunkenc.TargetBytesPerHistogramChunk/float64(size))
		s.other.endGuessed = true
	}
	return (t >= s.nextAt || size >= 2*chunkenc.TargetBytesPerHistogramChunk) && (n >= chunkenc.MinSamplesPerHistogramChunk || t >= end)
}

// newestType is that of the series' newest sample.
func (p *replaying) newestType(ref chunks.HeadSeriesRef, s *place) chunkenc.ValueType {
	if s.open() {
		return valueType(s.encoding())
	}
	if enc, ok := p.series.histograms[ref]; ok {
		return valueType(enc)
	}
	return chunkenc.ValFloat
}

// cut puts the open chunk, if there is one, into the head chunk files, and begins another.
func (p *replaying) cut(ref chunks.HeadSeriesRef, s *place, t int64, enc chunkenc.Encoding) {
	p.keep(ref, s)
	s.other = nil
	s.floats.begin()
	s.mint, s.nextAt = t, rangeEnd(t, p.cfg.ChunkRange)
	if enc == chunkenc.EncXOR {
		return
	}
	c, err := chunkenc.NewEmptyChunk(enc)
	if err != nil {
		panic(err) // the encodings are ours
	}
	app, err := c.Appender()
	if err != nil {
		panic(err) // it is empty
	}
	s.other = &otherChunk{Chunk: c, app: app}
}

// keep puts the open chunk into the head chunk files, but for an empty one.
func (p *replaying) keep(ref chunks.HeadSeriesRef, s *place) {
	if s.open() && s.samples() > 0 {
		p.chunks.add(ref, s.mint, s.last, s.encoding(), s.bytes())
	}
}

func rangeEnd(t, width int64) int64 { return t/width*width + width }

// guessEnd says where a chunk from mint to last is to end, of which as much again
// as times says would be full, such that chunks until end are of one length.
func guessEnd(mint, last, end int64, times float64) int64 {
	n := float64(end-mint) / (float64(last-mint+1) * times)
	if n <= 1 {
		return end
	}
	return int64(float64(mint) + float64(end-mint)/math.Floor(n))
}

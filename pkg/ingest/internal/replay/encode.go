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

// encoder puts samples of its share of the series into chunks. Samples come series after
// series, and each touches other memory, so they wait until there are several of each
// series of a run.
type encoder struct {
	*replaying
	encoded int
}

// waiting is how many samples wait for each series of a run.
const waiting = 8

func (e *encoder) batch(b *batch, share int) error {
	list := b.picked[share]
	for i := range list {
		smp := &list[i]
		ref := chunks.HeadSeriesRef(smp.ref)
		s := seriesAt(b.pages, ref)
		if s == nil {
			return unsure("a sample of series %d, which the log does not define, or under an older name", ref)
		}
		p := b.pages[ref>>pageBits]
		n := ref % pageSize >> runBits
		run := &p.waiting[n]
		if smp.other > 0 {
			e.drain(p, run)
			e.more(ref, s, smp, b.others[smp.other-1])
			continue
		}
		if *run == nil {
			*run = make([]sample, 0, waiting*max(1, p.defined[n].Load()))
		}
		if *run = append(*run, *smp); len(*run) < cap(*run) {
			continue
		}
		e.drain(p, run)
		if cap(*run) < waiting*int(p.defined[n].Load()) {
			*run = nil // there are more now
		}
	}
	return nil
}

// drain encodes the samples that wait in a run.
func (e *encoder) drain(p *page, run *[]sample) {
	for i := range *run {
		smp := &(*run)[i]
		if s := p.series[smp.ref%pageSize].Load(); smp.t > s.last {
			e.float(chunks.HeadSeriesRef(smp.ref), s, 0, smp.t, smp.v)
		}
	}
	*run = (*run)[:0]
}

// more encodes a sample with more to it.
func (e *encoder) more(ref chunks.HeadSeriesRef, s *series, smp *sample, o other) {
	switch {
	case smp.t <= s.last:
	case o.h != nil || o.fh != nil:
		e.histogram(ref, s, o.st, smp.t, o.h, o.fh)
	default:
		e.float(ref, s, o.st, smp.t, smp.v)
	}
}

// drainAll encodes what is left of a share.
func (e *encoder) drainAll(share, shares int) {
	for _, p := range e.series.pages {
		if p == nil {
			continue
		}
		for i := share; i < len(p.waiting); i += shares {
			e.drain(p, &p.waiting[i])
			p.waiting[i] = nil
		}
	}
}

// float appends a sample that is newer than all of its series before.
func (e *encoder) float(ref chunks.HeadSeriesRef, s *series, st, t int64, v float64) {
	if value.IsStaleNaN(v) {
		// As at its commit: the end of a series of histograms is a histogram.
		switch e.newestType(ref, s) {
		case chunkenc.ValHistogram:
			e.histogram(ref, s, st, t, &histogram.Histogram{Sum: v}, nil)
			return
		case chunkenc.ValFloatHistogram:
			e.histogram(ref, s, st, t, nil, &histogram.FloatHistogram{Sum: v})
			return
		}
	}
	if !s.open() || valueType(s.encoding()) != chunkenc.ValFloat || s.size() > chunkenc.MaxBytesPerXORChunkBeforeAppend {
		e.cut(ref, s, t, e.cfg.Floats)
	}
	n := s.samples()
	if n == e.cfg.SamplesPerChunk/4 {
		s.nextAt = guessEnd(s.mint, s.last, s.nextAt, 4)
	}
	if t >= s.nextAt || n >= 2*e.cfg.SamplesPerChunk {
		e.cut(ref, s, t, e.cfg.Floats)
	}
	if c := s.other; c != nil {
		c.app.Append(st, t, v)
		c.v = v
	} else {
		s.floats.append(s.last, t, v)
	}
	s.last = t
	e.encoded++
}

// histogram appends one of the two, which is newer than all of its series before.
func (e *encoder) histogram(ref chunks.HeadSeriesRef, s *series, st, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) {
	enc := e.cfg.Histograms
	if fh != nil {
		enc = e.cfg.FloatHistograms
	}
	var before chunkenc.Appender // tells whether a counter was reset between two chunks
	if s.other != nil {
		before = s.other.app
	}
	cut := !s.open() || s.encoding() != enc
	if cut {
		e.cut(ref, s, t, enc)
	}
	if e.histogramsEnd(s, t) {
		e.cut(ref, s, t, enc)
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
		e.keep(ref, s)
		c.Chunk, c.endGuessed = next, false
		s.mint, s.nextAt = t, rangeEnd(t, e.cfg.ChunkRange)
	}
	c.h, c.fh = h, fh
	s.last = t
	e.encoded++
}

// histogramsEnd tells whether a chunk of histograms is full: they vary in size, so
// it goes by bytes, but for a least number of samples.
func (e *encoder) histogramsEnd(s *series, t int64) bool {
	n, size := s.samples(), s.size()
	end := s.nextAt
	if s.other.endGuessed {
		end = rangeEnd(s.mint, e.cfg.ChunkRange)
	} else if n > 0 && size >= chunkenc.TargetBytesPerHistogramChunk/4 {
		s.nextAt = guessEnd(s.mint, s.last, s.nextAt, chunkenc.TargetBytesPerHistogramChunk/float64(size))
		s.other.endGuessed = true
	}
	return (t >= s.nextAt || size >= 2*chunkenc.TargetBytesPerHistogramChunk) && (n >= chunkenc.MinSamplesPerHistogramChunk || t >= end)
}

// newestType is that of the series' newest sample.
func (e *encoder) newestType(ref chunks.HeadSeriesRef, s *series) chunkenc.ValueType {
	if s.open() {
		return valueType(s.encoding())
	}
	if enc, ok := e.series.histograms[ref]; ok {
		return valueType(enc)
	}
	return chunkenc.ValFloat
}

// cut puts the open chunk, if there is one, into the head chunk files, and begins another.
func (e *encoder) cut(ref chunks.HeadSeriesRef, s *series, t int64, enc chunkenc.Encoding) {
	e.keep(ref, s)
	s.other = nil
	s.floats.begin()
	s.mint, s.nextAt = t, rangeEnd(t, e.cfg.ChunkRange)
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
func (e *encoder) keep(ref chunks.HeadSeriesRef, s *series) {
	if s.open() && s.samples() > 0 {
		e.chunks.add(ref, s.mint, s.last, s.encoding(), s.bytes())
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

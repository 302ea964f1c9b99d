package storeapi

import (
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// samplesPerChunk is what Prometheus aims at for chunks.
const samplesPerChunk = 120

// Encoder turns the samples of one series, appended in the order of time, into
// raw chunks. It cuts a new chunk when the kind of sample changes, when a chunk
// has MaxSamples, and where a histogram demands it (a counter reset, another
// layout). The zero value is ready for use.
type Encoder struct {
	// StartTimestamps selects the encodings that keep start timestamps: XOR2
	// and the two ST histograms. Unset, start timestamps are dropped and the
	// encodings are those every peer knows.
	StartTimestamps bool
	MaxSamples      int // a chunk; 0: 120

	chunks   []Chunk
	open     chunkenc.Chunk
	appender chunkenc.Appender
	min, max int64 // ms
}

// Float appends a float with start timestamp st and timestamp t, both ms.
func (e *Encoder) Float(st, t int64, v float64) error {
	if _, err := e.prepare(chunkenc.ValFloat, t); err != nil {
		return err
	}
	e.appender.Append(st, t, v)
	e.max = t
	return nil
}

// Histogram appends an integer histogram, which it may change.
func (e *Encoder) Histogram(st, t int64, h *histogram.Histogram) error {
	prev, err := e.prepare(chunkenc.ValHistogram, t)
	if err != nil {
		return err
	}
	c, recoded, app, err := e.appender.AppendHistogram(prev, st, t, h, false)
	return e.appended(t, c, recoded, app, err)
}

// FloatHistogram appends a float histogram, which it may change.
func (e *Encoder) FloatHistogram(st, t int64, h *histogram.FloatHistogram) error {
	prev, err := e.prepare(chunkenc.ValFloatHistogram, t)
	if err != nil {
		return err
	}
	c, recoded, app, err := e.appender.AppendFloatHistogram(prev, st, t, h, false)
	return e.appended(t, c, recoded, app, err)
}

// Samples appends all samples of an iterator.
func (e *Encoder) Samples(it chunkenc.Iterator) error {
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		var err error
		switch typ {
		case chunkenc.ValFloat:
			t, v := it.At()
			err = e.Float(it.AtST(), t, v)
		case chunkenc.ValHistogram:
			t, h := it.AtHistogram(nil)
			err = e.Histogram(it.AtST(), t, h)
		case chunkenc.ValFloatHistogram:
			t, h := it.AtFloatHistogram(nil)
			err = e.FloatHistogram(it.AtST(), t, h)
		}
		if err != nil {
			return err
		}
	}
	return it.Err()
}

// Chunks returns the chunks of what was appended so far and makes the Encoder
// ready for another series.
func (e *Encoder) Chunks() []Chunk {
	e.cut()
	chunks := e.chunks
	e.chunks, e.appender = nil, nil
	return chunks
}

// prepare makes sure that a chunk for a sample of the type at t is open. When
// that is a new one it returns the appender of the one before it.
func (e *Encoder) prepare(typ chunkenc.ValueType, t int64) (prev chunkenc.Appender, err error) {
	limit := e.MaxSamples
	if limit <= 0 {
		limit = samplesPerChunk
	}
	enc := typ.ChunkEncoding(e.StartTimestamps, e.StartTimestamps)
	if e.open != nil && e.open.Encoding() == enc && e.open.NumSamples() < limit {
		return nil, nil
	}
	if e.open != nil && e.open.Encoding() == enc {
		prev = e.appender
	}
	e.cut()
	c, err := chunkenc.NewEmptyChunk(enc)
	if err != nil {
		return nil, fmt.Errorf("encode sample at %d: %w", t, err)
	}
	app, err := c.Appender()
	if err != nil {
		return nil, fmt.Errorf("encode sample at %d: %w", t, err)
	}
	e.open, e.appender, e.min = c, app, t
	return prev, nil
}

// appended takes note of what appending a histogram at t has returned.
func (e *Encoder) appended(t int64, c chunkenc.Chunk, recoded bool, app chunkenc.Appender, err error) error {
	if err != nil {
		return fmt.Errorf("encode histogram at %d: %w", t, err)
	}
	if c != nil && !recoded {
		e.cut()
		e.min = t
	}
	if c != nil {
		e.open = c
	}
	e.appender, e.max = app, t
	return nil
}

// cut moves the open chunk to the finished ones.
func (e *Encoder) cut() {
	if e.open == nil {
		return
	}
	e.chunks = append(e.chunks, Chunk{MinTime: e.min, MaxTime: e.max, Raw: DataOf(e.open)})
	e.open = nil
}

package merge

import (
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/firnline/firnline/pkg/compact/internal/input"
	"github.com/firnline/firnline/pkg/compact/internal/output"
	"github.com/firnline/firnline/pkg/downsample"
)

// samplesPerChunk is how many samples a chunk encoded here has at most, as in
// Prometheus.
const samplesPerChunk = 120

// target is one block being written.
type target struct {
	Target
	w       *output.Writer
	chunks  []input.Chunk // of the current series
	samples output.Samples
	report  *TargetReport
}

func (t *target) chunk(enc chunkenc.Encoding, data []byte, mint, maxt int64) error {
	ref, err := t.w.Chunk(enc, data)
	if err != nil {
		return err
	}
	t.chunks = append(t.chunks, input.Chunk{MinTime: mint, MaxTime: maxt, Ref: ref})
	return nil
}

// end adds the series to the index, unless nothing is left of it.
func (t *target) end(labels []input.Label) error {
	if len(t.chunks) == 0 {
		return nil
	}
	t.report.add(t.chunks)
	err := t.w.Series(labels, t.chunks, t.samples)
	t.reset()
	return err
}

func (t *target) reset() { t.chunks, t.samples = t.chunks[:0], output.Samples{} }

// sink takes a series in order of time, as chunks to be copied and as samples to
// be encoded, and makes of it what each target wants.
type sink struct {
	direct *target   // of the sources' own resolution, or nil
	tiers  []*target // coarser ones
	down   *downsample.Downsampler
	keepST bool
	counts *Counts

	floats batch // to be encoded: without start timestamps
	xor    []byte
	open   open
	patch  []byte
}

// open is a chunk of histograms, or of floats with start timestamps, that may get more samples.
type open struct {
	chunk      chunkenc.Chunk // nil: none
	app        chunkenc.Appender
	typ        chunkenc.ValueType
	mint, maxt int64
}

// wantsSamples tells whether chunks have to be decoded even if they are copied.
func (k *sink) wantsSamples() bool { return len(k.tiers) > 0 }

// copy hands on a chunk as it is, decoded where wantsSamples.
func (k *sink) copy(p *piece) error {
	if err := k.flush(); err != nil {
		return err
	}
	k.counts.Copied++
	n := numSamples(p.enc, p.data)
	k.counts.SamplesOut += uint64(n)
	if k.direct != nil {
		data := p.data
		if p.broken {
			data = k.withoutHint(p.enc, data)
		}
		k.count(valueType(p.enc), n)
		if err := k.direct.chunk(p.enc, data, p.mint, p.maxt); err != nil {
			return err
		}
	}
	if !k.wantsSamples() {
		return nil
	}
	return k.downsample(p.batch, 0, p.batch.len())
}

// hintAt returns where the hint of a chunk of histograms stands.
func hintAt(enc chunkenc.Encoding, data []byte) (at int, ok bool) {
	switch enc {
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
		at = 2
	case chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		at = 0
	default:
		return 0, false
	}
	return at, len(data) > at
}

func hint(flags byte) chunkenc.CounterResetHeader {
	return chunkenc.CounterResetHeader(flags & chunkenc.CounterResetHeaderMask)
}

func (k *sink) count(typ chunkenc.ValueType, n int) {
	if typ == chunkenc.ValFloat {
		k.direct.samples.Floats += uint64(n)
		return
	}
	k.direct.samples.Histograms += uint64(n)
}

// withoutHint returns a chunk of histograms that says nothing on whether there
// was a reset before its first sample.
func (k *sink) withoutHint(enc chunkenc.Encoding, data []byte) []byte {
	flags, ok := hintAt(enc, data)
	if !ok || hint(data[flags]) == chunkenc.GaugeType || hint(data[flags]) == chunkenc.UnknownCounterReset {
		return data
	}
	k.patch = append(k.patch[:0], data...)
	k.patch[flags] &^= chunkenc.CounterResetHeaderMask
	return k.patch
}

// add takes the samples from i to before j of b, to be encoded.
func (k *sink) add(b *batch, i, j int) error {
	k.counts.SamplesOut += uint64(j - i)
	if k.wantsSamples() {
		if err := k.downsample(b, i, j); err != nil {
			return err
		}
	}
	if k.direct == nil {
		return nil
	}
	k.count(b.typ, j-i)
	if b.typ != chunkenc.ValFloat || k.keepST && len(b.sts) > 0 {
		return k.addOpen(b, i, j)
	}
	if err := k.flushOpen(); err != nil {
		return err
	}
	for i < j {
		n := min(j-i, samplesPerChunk-k.floats.len())
		k.floats.ts = append(k.floats.ts, b.ts[i:i+n]...)
		k.floats.vs = append(k.floats.vs, b.vs[i:i+n]...)
		if i += n; k.floats.len() == samplesPerChunk {
			if err := k.flushFloats(); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush ends the chunk being encoded.
func (k *sink) flush() error {
	if err := k.flushFloats(); err != nil {
		return err
	}
	return k.flushOpen()
}

func (k *sink) flushFloats() error {
	n := k.floats.len()
	if n == 0 {
		return nil
	}
	k.xor = downsample.AppendXORChunk(k.xor[:0], k.floats.ts, k.floats.vs)
	k.counts.Encoded++
	err := k.direct.chunk(chunkenc.EncXOR, k.xor, k.floats.ts[0], k.floats.ts[n-1])
	k.floats.reset()
	return err
}

func (k *sink) flushOpen() error {
	if k.open.chunk == nil {
		return nil
	}
	err := k.putOpen()
	k.open = open{}
	return err
}

func (k *sink) putOpen() error {
	o := &k.open
	k.counts.Encoded++
	return k.direct.chunk(o.chunk.Encoding(), o.chunk.Bytes(), o.mint, o.maxt)
}

// addOpen encodes sample by sample through chunkenc, which knows where a
// histogram doesn't fit the chunk it has.
func (k *sink) addOpen(b *batch, i, j int) error {
	if err := k.flushFloats(); err != nil {
		return err
	}
	for ; i < j; i++ {
		st := int64(0)
		if k.keepST {
			st = b.st(i)
		}
		prev, err := k.openFor(b.typ, st)
		if err != nil {
			return err
		}
		if err := k.append(prev, b, i, st); err != nil {
			return fmt.Errorf("encode sample at %d ms: %w", b.ts[i], err)
		}
	}
	return nil
}

// openFor makes sure that the open chunk can take a sample of that type. It
// returns the appender of the chunk before, from which a counter may go on.
func (k *sink) openFor(typ chunkenc.ValueType, st int64) (prev chunkenc.Appender, err error) {
	o := &k.open
	want := typ.ChunkEncoding(st != 0, st != 0)
	if o.chunk != nil {
		enc := o.chunk.Encoding()
		fits := enc == want || enc == chunkenc.EncXOR2 && typ == chunkenc.ValFloat
		if o.typ == typ && fits && o.chunk.NumSamples() < samplesPerChunk {
			return nil, nil
		}
		if o.typ == typ && !isGauge(o.chunk) {
			prev = o.app
		}
		if err := k.flushOpen(); err != nil {
			return nil, err
		}
	}
	c, err := chunkenc.NewEmptyChunk(want)
	if err != nil {
		return nil, err
	}
	app, err := c.Appender()
	if err != nil {
		return nil, err
	}
	k.open = open{chunk: c, app: app, typ: typ}
	return prev, nil
}

func isGauge(c chunkenc.Chunk) bool {
	h, ok := c.(interface {
		GetCounterResetHeader() chunkenc.CounterResetHeader
	})
	return ok && h.GetCounterResetHeader() == chunkenc.GaugeType
}

// append adds sample i of b to the open chunk, which is ended or encoded anew
// where the sample doesn't fit.
func (k *sink) append(prev chunkenc.Appender, b *batch, i int, st int64) (err error) {
	var (
		o       = &k.open
		t       = b.ts[i]
		fresh   chunkenc.Chunk
		recoded bool
	)
	switch b.typ {
	case chunkenc.ValFloat:
		o.app.Append(st, t, b.vs[i])
	case chunkenc.ValHistogram:
		fresh, recoded, o.app, err = o.app.AppendHistogram(prev, st, t, b.hs[i], false)
	default:
		fresh, recoded, o.app, err = o.app.AppendFloatHistogram(prev, st, t, b.fhs[i], false)
	}
	if err != nil {
		return err
	}
	if fresh != nil {
		if !recoded {
			if err := k.putOpen(); err != nil {
				return err
			}
		}
		o.chunk = fresh
	}
	if o.chunk.NumSamples() == 1 {
		o.mint = t
	}
	o.maxt = t
	return nil
}

// downsample gives samples to the coarser targets.
func (k *sink) downsample(b *batch, i, j int) error { return feed(k.down, b, i, j) }

// feed gives the samples from i to before j of b to d.
func feed(d *downsample.Downsampler, b *batch, i, j int) error {
	if b.typ == chunkenc.ValFloat {
		return d.Floats(b.ts[i:j], b.vs[i:j])
	}
	for ; i < j; i++ {
		var err error
		if b.typ == chunkenc.ValHistogram {
			err = d.IntHistogram(b.ts[i], b.hs[i])
		} else {
			err = d.Histogram(b.ts[i], b.fhs[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// end writes the series to all targets.
func (k *sink) end(labels []input.Label) error {
	if err := k.flush(); err != nil {
		return err
	}
	if k.direct != nil {
		if err := k.direct.end(labels); err != nil {
			return err
		}
	}
	for _, t := range k.tiers {
		chunks, err := k.down.Finish(t.Resolution)
		if err != nil {
			return err
		}
		for _, c := range chunks {
			if err := t.aggregate(&c); err != nil {
				return err
			}
		}
		if err := t.end(labels); err != nil {
			return err
		}
	}
	if k.down != nil {
		k.down.Reset()
	}
	return nil
}

// aggregate writes an aggregate chunk.
func (t *target) aggregate(c *downsample.Encoded) error {
	if c.Histograms {
		t.samples.Histograms += uint64(c.Windows)
	} else {
		t.samples.Floats += uint64(c.Windows)
	}
	return t.chunk(downsample.Encoding, c.Payload, c.MinTime, c.MaxTime)
}

// reset forgets what there is of the current series.
func (k *sink) reset() {
	k.floats.reset()
	k.open = open{}
	if k.direct != nil {
		k.direct.reset()
	}
	for _, t := range k.tiers {
		t.reset()
	}
	if k.down != nil {
		k.down.Reset()
	}
}

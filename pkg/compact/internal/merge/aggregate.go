package merge

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/firnline/firnline/pkg/downsample"
)

// aggregates writes series of downsampled blocks: chunks that overlap nothing as
// they are, others by downsample.Merge. A plain chunk among them, which other
// programs leave there, is downsampled first.
type aggregates struct {
	resolution int64
	src        *chunkSource
	sink       *sink
	counts     *Counts
	cuts       tombstones.Intervals

	down  *downsample.Downsampler // of plain chunks
	plain batch
	parts []part // of the stretch at work
	bytes []byte // their payloads
	maxt  int64  // of the last chunk written
	some  bool   // there is one
}

// part is one aggregate chunk of a stretch.
type part struct {
	chunk   chunk
	replica int
	payload []byte
	fresh   bool // not the bytes that were read
}

// run writes all chunks of the replicas.
func (a *aggregates) run(replicas []*replica, cuts tombstones.Intervals) error {
	a.cuts, a.some = cuts, false
	var all []chunk
	owners := map[int32]int{}
	for i, r := range replicas {
		for _, c := range r.chunks {
			owners[c.src] = i
		}
		all = append(all, r.chunks...)
	}
	sortChunks(all)
	for pos := 0; pos < len(all); {
		end := stretchEnd(all, pos)
		a.parts, a.bytes = a.parts[:0], a.bytes[:0]
		for i := pos; i < end; i++ {
			if err := a.load(all, i, owners[all[i].src]); err != nil {
				return err
			}
		}
		pos = end
		if err := a.write(); err != nil {
			return err
		}
	}
	return nil
}

// load adds what is left of a chunk to the parts.
func (a *aggregates) load(all []chunk, i, replica int) error {
	c := all[i]
	enc, data, err := a.src.load(c)
	if err != nil {
		return err
	}
	a.counts.Read++
	if enc != downsample.Encoding {
		return a.downsample(c, replica, enc, data)
	}
	decoded, err := downsample.Decode(data)
	if err != nil {
		return a.src.corrupt(c, err)
	}
	n := decoded.NumSamples()
	a.counts.SamplesIn += uint64(n)
	if n == 0 {
		a.counts.Empty++
		return nil
	}
	p := part{chunk: c, replica: replica, payload: a.keep(data)}
	if c.partly {
		return a.cut(p, all[i+1:])
	}
	a.parts = append(a.parts, p)
	return nil
}

// keep copies a payload to where it is valid until the stretch is written.
func (a *aggregates) keep(payload []byte) []byte {
	start := len(a.bytes)
	a.bytes = append(a.bytes, payload...)
	return a.bytes[start:]
}

// checkTimes tells whether the windows of a chunk that was read lie within the
// times of its index entry, which is where the others are looked for.
func (a *aggregates) checkTimes(p part) error {
	if p.fresh {
		return nil
	}
	decoded, err := downsample.Decode(p.payload)
	if err != nil {
		return a.src.corrupt(p.chunk, err)
	}
	ts, _, err := downsample.AppendXOR(nil, nil, decoded[downsample.Count].Bytes)
	if err != nil {
		return a.src.corrupt(p.chunk, err)
	}
	if n := len(ts); n > 0 && (ts[0] < p.chunk.mint || ts[n-1] > p.chunk.maxt) {
		return a.src.corrupt(p.chunk, fmt.Errorf("windows from %d to %d in a chunk from %d to %d", ts[0], ts[n-1], p.chunk.mint, p.chunk.maxt))
	}
	return nil
}

// cut adds the windows of p that stay.
func (a *aggregates) cut(p part, behind []chunk) error {
	if err := a.checkTimes(p); err != nil {
		return err
	}
	next, err := a.nextValue(p.chunk, behind)
	if err != nil {
		return err
	}
	left, ok, err := downsample.Cut(p.payload, a.resolution, a.cuts, next)
	if err != nil {
		return a.src.corrupt(p.chunk, err)
	}
	a.counts.Decoded++
	a.counts.SamplesCut += uint64(numSamples(downsample.Encoding, p.payload) - left.Windows)
	if !ok {
		return nil
	}
	p.fresh = p.fresh || !bytes.Equal(p.payload, left.Payload)
	p.payload = left.Payload
	if p.fresh {
		p.chunk.mint, p.chunk.maxt = left.MinTime, left.MaxTime
	}
	a.parts = append(a.parts, p)
	return nil
}

// nextValue returns the counter's first value in the chunk behind c in its
// source; nil if that is none of floats.
func (a *aggregates) nextValue(c chunk, behind []chunk) (*float64, error) {
	i := slices.IndexFunc(behind, func(o chunk) bool { return o.src == c.src })
	if i < 0 {
		return nil, nil
	}
	enc, data, err := a.src.load(behind[i])
	if err != nil {
		return nil, err
	}
	if enc != downsample.Encoding {
		if err := a.src.decoder.decode(&a.plain, enc, data); err != nil {
			return nil, a.src.corrupt(behind[i], err)
		}
		if len(a.plain.vs) == 0 {
			return nil, nil
		}
		return &a.plain.vs[0], nil
	}
	in, err := downsample.Decode(data)
	if err != nil {
		return nil, a.src.corrupt(behind[i], err)
	}
	if in[downsample.Counter].Encoding != chunkenc.EncXOR {
		return nil, nil
	}
	_, vs, err := downsample.AppendXOR(nil, nil, in[downsample.Counter].Bytes)
	if err != nil {
		return nil, a.src.corrupt(behind[i], err)
	}
	if len(vs) == 0 {
		return nil, nil
	}
	return &vs[0], nil
}

// downsample adds the windows of a plain chunk to the parts.
func (a *aggregates) downsample(c chunk, replica int, enc chunkenc.Encoding, data []byte) error {
	if err := a.src.decoder.decode(&a.plain, enc, data); err != nil {
		return a.src.corrupt(c, err)
	}
	a.counts.Decoded++
	a.counts.SamplesIn += uint64(a.plain.len())
	a.counts.Mended++
	if !a.plain.sorted() {
		a.counts.SamplesEqual += uint64(a.plain.sort())
	}
	if c.partly {
		a.counts.SamplesCut += uint64(a.plain.cut(a.cuts))
	}
	if a.down == nil {
		a.down = downsample.NewDownsampler(a.resolution)
	}
	a.down.Reset()
	if err := feed(a.down, &a.plain, 0, a.plain.len()); err != nil {
		return a.src.corrupt(c, err)
	}
	chunks, err := a.down.Finish(a.resolution)
	if err != nil {
		return a.src.corrupt(c, err)
	}
	for _, e := range chunks {
		in := c
		in.mint, in.maxt = e.MinTime, e.MaxTime
		a.parts = append(a.parts, part{chunk: in, replica: replica, payload: a.keep(e.Payload), fresh: true})
	}
	return nil
}

// write hands the parts on: those that overlap none as they are, the others merged.
func (a *aggregates) write() error {
	slices.SortStableFunc(a.parts, func(x, y part) int { return compareChunks(x.chunk, y.chunk) })
	for pos := 0; pos < len(a.parts); {
		end, maxt := pos+1, a.parts[pos].chunk.maxt
		for end < len(a.parts) && a.parts[end].chunk.mint <= maxt {
			maxt = max(maxt, a.parts[end].chunk.maxt)
			end++
		}
		if err := a.stretch(a.parts[pos:end]); err != nil {
			return err
		}
		pos = end
	}
	return nil
}

// stretch hands parts on that overlap.
func (a *aggregates) stretch(parts []part) error {
	first := parts[0]
	if !slices.ContainsFunc(parts, func(p part) bool {
		return p.chunk.mint != first.chunk.mint || p.chunk.maxt != first.chunk.maxt || !bytes.Equal(p.payload, first.payload)
	}) {
		n := numSamples(downsample.Encoding, first.payload)
		a.counts.Equal += uint64(len(parts) - 1)
		a.counts.SamplesEqual += uint64((len(parts) - 1) * n)
		if first.fresh {
			a.counts.Encoded++
		} else {
			a.counts.Copied++
		}
		return a.put(first)
	}
	in := make([]downsample.Part, len(parts))
	for i, p := range parts {
		if err := a.checkTimes(p); err != nil {
			return err
		}
		in[i] = downsample.Part{Payload: p.payload, Replica: p.replica}
	}
	chunks, err := downsample.Merge(a.resolution, in)
	if err != nil {
		var of *downsample.PartError
		if errors.As(err, &of) {
			return a.src.corrupt(parts[of.Part].chunk, of.Err)
		}
		return fmt.Errorf("merge aggregate chunks from %d ms: %w", first.chunk.mint, err)
	}
	a.counts.Decoded += uint64(len(parts))
	a.counts.Encoded += uint64(len(chunks))
	for _, e := range chunks {
		out := first
		out.chunk.mint, out.chunk.maxt, out.payload = e.MinTime, e.MaxTime, e.Payload
		if err := a.put(out); err != nil {
			return err
		}
	}
	return nil
}

// put gives a chunk to the targets.
func (a *aggregates) put(p part) error {
	c, err := downsample.Decode(p.payload)
	if err != nil {
		return a.src.corrupt(p.chunk, err)
	}
	mint := p.chunk.mint
	if a.some { // A chunk may begin with a raw sample before its first window.
		mint = max(mint, a.maxt+1)
	}
	a.maxt, a.some = p.chunk.maxt, true
	a.counts.SamplesOut += uint64(c.NumSamples())
	k := a.sink
	if k.direct != nil {
		err := k.direct.aggregate(&downsample.Encoded{
			MinTime: mint, MaxTime: p.chunk.maxt, Payload: p.payload, Windows: c.NumSamples(),
			Histograms: c[downsample.Counter].Encoding != chunkenc.EncXOR,
		})
		if err != nil {
			return err
		}
	}
	if !k.wantsSamples() {
		return nil
	}
	if err := k.down.Aggregate(c); err != nil {
		return a.src.corrupt(p.chunk, err)
	}
	return nil
}

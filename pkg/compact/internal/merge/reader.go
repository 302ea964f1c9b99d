package merge

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/firnline/firnline/pkg/block"
)

// chunk is one chunk of the current series before its bytes are read. It spans
// [mint, maxt] ms. Among samples of the same time that of the lower src, and in
// one source of the lower seq, is kept.
type chunk struct {
	mint, maxt int64
	ref        uint64
	src, seq   int32
	partly     bool // some of it lies within the intervals to be cut out
	unsorted   bool // its samples are known to be out of order
}

// alone tells whether the chunk may be copied if nothing overlaps it.
func (c *chunk) alone() bool { return !c.partly && !c.unsorted }

// sortChunks brings the chunks of a replica into the order they are read in.
func sortChunks(chunks []chunk) {
	if !slices.IsSortedFunc(chunks, compareChunks) {
		slices.SortFunc(chunks, compareChunks)
	}
}

func compareChunks(a, b chunk) int {
	return cmp.Or(cmp.Compare(a.mint, b.mint), cmp.Compare(a.src, b.src), cmp.Compare(a.seq, b.seq))
}

// stretchEnd returns the end of the stretch that begins at chunks[pos]: of the
// chunks that overlap it, directly or by way of others.
func stretchEnd(chunks []chunk, pos int) int {
	maxt := chunks[pos].maxt
	for pos++; pos < len(chunks) && chunks[pos].mint <= maxt; pos++ {
		maxt = max(maxt, chunks[pos].maxt)
	}
	return pos
}

// piece is a part of what a replica has: a chunk as it is, or samples that were
// merged from several. It is valid until the next one is read, histograms of a
// chunk with it.
type piece struct {
	chunk // nothing but its times where it was merged
	enc   chunkenc.Encoding
	data  []byte // nil: merged
	batch *batch // of a chunk: empty before it is decoded
	// broken: the sample before the piece isn't the one its first sample was
	// compared with when it was written, if at all.
	broken bool
}

// errMend is returned where chunks turn out not to be what the index says, so
// that the series has to be read anew with open eyes.
var errMend = errors.New("chunks differ from their index entry")

// reader yields the samples of one replica of a series piece by piece in order
// of time: chunks that nothing overlaps as they are, the others merged.
type reader struct {
	src    *chunkSource
	cuts   tombstones.Intervals
	chunks []chunk
	counts *Counts

	pos, end int // chunks[pos:end] is what was not opened yet of the stretch under way
	heads    []*run
	held     int // samples of these
	spare    []*run
	broken   bool
	lastT    int64 // of the last sample merged
	lastRun  *run  // whose it was
	copied   []byte
	merged   batch
	decoded  batch // of a piece that is a chunk
	piece    piece
}

// run is a decoded chunk of the stretch under way.
type run struct {
	batch
	src, seq int32
	next     int // index of the first sample not taken
	after    int // index behind the last one taken
}

// reset begins with the chunks of another replica, in the order of sortChunks.
func (r *reader) reset(cuts tombstones.Intervals, chunks []chunk) {
	r.cuts, r.chunks = cuts, chunks
	r.pos, r.end, r.broken, r.lastT, r.lastRun, r.held = 0, 0, false, 0, nil, 0
	r.spare = append(r.spare, r.heads...)
	r.heads = r.heads[:0]
}

// merging tells whether a stretch is under way.
func (r *reader) merging() bool { return r.pos < r.end || len(r.heads) > 0 }

// next returns the next piece, nil at the end.
func (r *reader) next() (*piece, error) {
	for {
		var (
			p   *piece
			err error
		)
		switch {
		case r.merging():
			p, err = r.merge()
		case r.pos == len(r.chunks):
			return nil, nil
		default:
			r.end = stretchEnd(r.chunks, r.pos)
			p, err = r.whole()
		}
		if p != nil || err != nil {
			return p, err
		}
	}
}

// whole returns the stretch that begins at pos where it is a single chunk or
// copies of one, and nil where it must be merged or is empty.
func (r *reader) whole() (*piece, error) {
	first := r.chunks[r.pos]
	for _, c := range r.chunks[r.pos:r.end] {
		if !c.alone() || c.mint != first.mint || c.maxt != first.maxt {
			return nil, nil
		}
	}
	enc, data, err := r.src.load(first)
	if err != nil {
		return nil, err
	}
	n := numSamples(enc, data)
	if r.end-r.pos > 1 {
		r.copied = append(r.copied[:0], data...)
		data = r.copied
		for _, c := range r.chunks[r.pos+1 : r.end] {
			otherEnc, other, err := r.src.load(c)
			if err != nil {
				return nil, err
			}
			if otherEnc != enc || !bytes.Equal(other, data) {
				return nil, nil
			}
		}
	}
	copies := r.end - r.pos
	r.pos = r.end
	r.counts.Read += uint64(copies)
	r.counts.Equal += uint64(copies - 1)
	r.counts.SamplesIn += uint64(copies * n)
	r.counts.SamplesEqual += uint64((copies - 1) * n)
	if n == 0 {
		r.counts.Empty++
		return nil, nil
	}
	r.decoded.recycle()
	r.piece = piece{chunk: first, enc: enc, data: data, batch: &r.decoded, broken: r.broken}
	r.broken = false
	return &r.piece, nil
}

// decode reads the samples of a piece that is a chunk.
func (r *reader) decode(p *piece) error {
	if p.batch.len() > 0 {
		return nil
	}
	r.counts.Decoded++
	return r.src.decode(p.batch, p.chunk, p.enc, p.data)
}

// mergeSamples is how many samples a merged piece may have, so that memory does
// not grow with the stretch.
const mergeSamples = 480

// merge returns the next samples of the stretch under way, nil at its end.
func (r *reader) merge() (*piece, error) {
	r.merged.reset()
	for r.merged.len() < mergeSamples {
		r.skip()
		if err := r.open(); err != nil {
			return nil, err
		}
		if r.zip() {
			continue
		}
		h, limit := r.lowest()
		if h == nil {
			break // open has nothing more: the end of the stretch
		}
		if r.merged.len() > 0 && r.merged.typ != h.typ {
			break
		}
		r.merged.typ = h.typ
		r.take(h, limit)
	}
	r.broken = true // of what comes behind the stretch
	if r.merged.len() == 0 {
		return nil, nil
	}
	r.piece = piece{chunk: chunk{mint: r.merged.ts[0], maxt: r.merged.ts[r.merged.len()-1]}, batch: &r.merged, broken: true}
	return &r.piece, nil
}

// mostHeld is how many samples of a series may be decoded at once: thousands of
// usual chunks that all overlap at one time, which only a broken block has.
const mostHeld = 1 << 20

// tooMany blames the source that has most of what is open.
func (r *reader) tooMany() error {
	by := map[int32]int{}
	worst := r.heads[0].src
	for _, h := range r.heads {
		if by[h.src] += h.len(); by[h.src] > by[worst] {
			worst = h.src
		}
	}
	return &sourceError{src: int(worst), err: fmt.Errorf("%w: more than %d samples of one series overlap at %d ms", block.ErrCorrupt, mostHeld, r.earliest())}
}

// open decodes the chunks that may have the next sample.
func (r *reader) open() error {
	for r.pos < r.end {
		c := r.chunks[r.pos]
		if len(r.heads) > 0 && c.mint > r.earliest() {
			return nil
		}
		if r.held > mostHeld {
			return r.tooMany()
		}
		r.pos++
		h := r.spareRun()
		enc, data, err := r.src.load(c)
		if err != nil {
			return err
		}
		r.counts.Read++
		n := numSamples(enc, data)
		r.counts.SamplesIn += uint64(n)
		if n == 0 {
			r.counts.Empty++
			r.spare = append(r.spare, h)
			continue
		}
		r.counts.Decoded++
		if err := r.src.decode(&h.batch, c, enc, data); err != nil {
			return err
		}
		if c.unsorted {
			r.counts.SamplesEqual += uint64(h.sort())
		}
		if c.partly {
			r.counts.SamplesCut += uint64(h.cut(r.cuts))
		}
		h.src, h.seq, h.next, h.after = c.src, c.seq, 0, -1
		if h.len() == 0 { // all of it cut out
			r.spare = append(r.spare, h)
			continue
		}
		r.heads = append(r.heads, h)
		r.held += h.len()
	}
	return nil
}

func (r *reader) spareRun() *run {
	if n := len(r.spare); n > 0 {
		h := r.spare[n-1]
		r.spare = r.spare[:n-1]
		return h
	}
	return &run{}
}

// skip passes over samples of a time that was taken already, and lets go of
// chunks that have no more.
func (r *reader) skip() {
	open := r.heads[:0]
	for _, h := range r.heads {
		for h.next < h.len() && r.lastRun != nil && h.ts[h.next] <= r.lastT {
			h.next++
			r.counts.SamplesEqual++
		}
		if h.next < h.len() {
			open = append(open, h)
		} else {
			r.held -= h.len()
			r.spare = append(r.spare, h)
		}
	}
	r.heads = open
}

// earliest is the time of the next sample among the open chunks.
func (r *reader) earliest() int64 {
	t := int64(math.MaxInt64)
	for _, h := range r.heads {
		t = min(t, h.ts[h.next])
	}
	return t
}

// unopened is the time from which on a chunk that isn't open yet has a say.
func (r *reader) unopened() int64 {
	if r.pos < r.end {
		return r.chunks[r.pos].mint
	}
	return math.MaxInt64
}

// zip takes samples of two open chunks in turn, where there are two and of plain
// floats: two scrapers of one target give a stretch in which every sample is
// another one's. By way of lowest and take that would be four times as long.
func (r *reader) zip() bool {
	if len(r.heads) != 2 || !r.heads[0].plain() || !r.heads[1].plain() || r.merged.len() > 0 && !r.merged.plain() {
		return false
	}
	a, b, limit := r.heads[0], r.heads[1], r.unopened()
	if b.before(a) {
		a, b = b, a
	}
	i, j, out := a.next, b.next, &r.merged
	out.typ = chunkenc.ValFloat
	for i < len(a.ts) && j < len(b.ts) && len(out.ts) < mergeSamples && min(a.ts[i], b.ts[j]) < limit {
		if a.ts[i] > b.ts[j] {
			out.ts, out.vs = append(out.ts, b.ts[j]), append(out.vs, b.vs[j])
			j++
			continue
		}
		if a.ts[i] == b.ts[j] {
			j++
			r.counts.SamplesEqual++
		}
		out.ts, out.vs = append(out.ts, a.ts[i]), append(out.vs, a.vs[i])
		i++
	}
	if i+j == a.next+b.next {
		return false
	}
	a.next, b.next = i, j
	r.lastRun, r.lastT = a, out.ts[len(out.ts)-1]
	return true
}

// lowest returns the open chunk that has the next sample, and the time from
// which on another chunk has a say.
func (r *reader) lowest() (best *run, limit int64) {
	limit = r.unopened()
	for _, h := range r.heads {
		switch t := h.ts[h.next]; {
		case best == nil:
			best = h
		case t < best.ts[best.next] || t == best.ts[best.next] && h.before(best):
			limit = min(limit, best.ts[best.next])
			best = h
		default:
			limit = min(limit, t)
		}
	}
	return best, limit
}

// before tells whose sample counts where both have one of the same time: as in
// Prometheus' head, the one that was there first.
func (h *run) before(o *run) bool {
	return cmp.Or(cmp.Compare(h.src, o.src), cmp.Compare(h.seq, o.seq)) < 0
}

// take moves the samples of h before limit, one at least, to the merged ones.
func (r *reader) take(h *run, limit int64) {
	i := h.next
	end := i + 1
	for end < h.len() && h.ts[end] < limit && end-i < mergeSamples {
		end++
	}
	first := r.merged.len()
	r.merged.takeRange(&h.batch, i, end)
	if r.lastRun != h || h.after != i {
		r.merged.forgetHint(first)
	}
	h.next, h.after = end, end
	r.lastRun, r.lastT = h, h.ts[end-1]
}

// sort brings samples into order and keeps the first one of a time. It returns
// how many it has dropped.
func (b *batch) sort() int {
	order := make([]int, b.len())
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(b.ts[i], b.ts[j]) })
	sorted := batch{typ: b.typ}
	for _, i := range order {
		if n := sorted.len(); n > 0 && sorted.ts[n-1] == b.ts[i] {
			continue
		}
		sorted.takeRange(b, i, i+1)
		sorted.forgetHint(sorted.len() - 1)
	}
	dropped := b.len() - sorted.len()
	*b = sorted
	return dropped
}

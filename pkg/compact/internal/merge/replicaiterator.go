package merge

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/firnline/firnline/pkg/dedup"
)

var (
	_ dedup.Skipper = (*replicaIterator)(nil)
	_ dedup.Runner  = (*replicaIterator)(nil)
)

// unit is a piece of a replica, decoded: what the deduplication reads from. It
// is kept as long as the output may turn out to be the same as the chunk.
type unit struct {
	piece piece // its data and batch are the unit's own
	batch batch
	data  []byte
	seq   int

	matched int // samples that stand at the end of what waits to be written; -1: it differs
	start   int // index there of the first of them
}

// replicaIterator reads the samples of a replica, a chunkenc.Iterator.
type replicaIterator struct {
	reader reader
	unit   *unit // under the cursor
	i      int   // of the current sample
	err    error

	opened []*unit // whole chunks which the output has not passed
	spare  []*unit
	seq    int
}

func (it *replicaIterator) begin(m *series, r *replica) {
	it.reader.src, it.reader.counts = m.src, &m.counts
	it.reader.reset(m.cuts, r.chunks)
	it.spare = append(it.spare, it.opened...)
	it.unit, it.err, it.opened, it.i, it.seq = nil, nil, it.opened[:0], 0, 0
}

func (it *replicaIterator) Next() chunkenc.ValueType {
	if it.err != nil {
		return chunkenc.ValNone
	}
	if it.unit != nil && it.i+1 < it.unit.batch.len() {
		it.i++
		return it.unit.batch.typ
	}
	if it.err = it.open(); it.err != nil || it.unit == nil {
		return chunkenc.ValNone
	}
	return it.unit.batch.typ
}

// open reads the next unit; none at the end.
func (it *replicaIterator) open() error {
	if it.unit != nil && it.unit.piece.data == nil {
		it.spare = append(it.spare, it.unit) // Nothing waits for it.
	}
	it.unit, it.i = nil, 0
	p, err := it.reader.next()
	if p == nil || err != nil {
		return err
	}
	u := it.spareUnit()
	u.piece = *p
	if p.data != nil {
		u.data = append(u.data[:0], p.data...)
		u.piece.data, u.piece.batch = u.data, &u.batch
		if err := it.reader.decode(&u.piece); err != nil {
			return err
		}
		it.opened = append(it.opened, u)
	} else {
		u.batch.reset()
		u.batch.typ = p.batch.typ
		u.batch.takeRange(p.batch, 0, p.batch.len())
		u.piece.batch = &u.batch
	}
	u.seq, u.matched = it.seq, 0
	it.seq++
	it.unit = u
	return nil
}

func (it *replicaIterator) spareUnit() *unit {
	if n := len(it.spare); n > 0 {
		u := it.spare[n-1]
		it.spare = it.spare[:n-1]
		u.batch.reset()
		return u
	}
	return &unit{}
}

// Skip implements dedup.Skipper: chunks that end at or before t go unread, but
// for the last ones, which have the samples to keep.
func (it *replicaIterator) Skip(t int64, keep int) {
	r := &it.reader
	if it.err != nil || r.merging() {
		return
	}
	end := r.pos // of the chunks that stand alone up to t
	for end < len(r.chunks) && r.chunks[end].maxt <= t && r.chunks[end].alone() && stretchEnd(r.chunks, end) == end+1 {
		end++
	}
	for pos := end; pos > r.pos && keep > 0; {
		pos--
		enc, data, err := it.reader.src.load(r.chunks[pos])
		if err != nil {
			return // It comes again where the chunk is needed.
		}
		if keep -= numSamples(enc, data); keep <= 0 {
			it.jump(pos)
		}
	}
}

// Run implements dedup.Runner.
func (it *replicaIterator) Run() (ts []int64, vs []float64) {
	if it.unit == nil || it.unit.batch.typ != chunkenc.ValFloat || len(it.unit.batch.sts) > 0 || it.i >= it.unit.batch.len() {
		return nil, nil
	}
	return it.unit.batch.ts[it.i+1:], it.unit.batch.vs[it.i+1:]
}

// Advance implements dedup.Runner.
func (it *replicaIterator) Advance(n int) { it.i += n }

// jump goes on with the chunk at pos of those the reader has.
func (it *replicaIterator) jump(pos int) {
	r := &it.reader
	r.counts.Passed += uint64(pos - r.pos)
	r.pos, r.end, r.broken = pos, pos, true
	if it.unit != nil {
		it.i = it.unit.batch.len()
	}
}

// pass drops the chunks that end before t.
func (it *replicaIterator) pass(t int64) {
	for len(it.opened) > 0 && it.opened[0].piece.maxt < t {
		u := it.opened[0]
		it.opened = append(it.opened[:0], it.opened[1:]...)
		if u != it.unit {
			it.spare = append(it.spare, u)
		} else {
			u.piece.data = nil // open hands it back
		}
	}
}

func (it *replicaIterator) Seek(t int64) chunkenc.ValueType {
	if it.unit != nil && it.i < it.unit.batch.len() && it.unit.batch.ts[it.i] >= t {
		return it.unit.batch.typ
	}
	for {
		if typ := it.Next(); typ == chunkenc.ValNone || it.AtT() >= t {
			return typ
		}
	}
}

func (it *replicaIterator) At() (int64, float64) {
	b := &it.unit.batch
	return b.ts[it.i], b.vs[it.i]
}

func (it *replicaIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	b := &it.unit.batch
	if h == nil {
		return b.ts[it.i], b.hs[it.i].Copy()
	}
	b.hs[it.i].CopyTo(h)
	return b.ts[it.i], h
}

func (it *replicaIterator) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	b := &it.unit.batch
	if b.typ == chunkenc.ValHistogram {
		return b.ts[it.i], b.hs[it.i].ToFloat(fh)
	}
	if fh == nil {
		return b.ts[it.i], b.fhs[it.i].Copy()
	}
	b.fhs[it.i].CopyTo(fh)
	return b.ts[it.i], fh
}

func (it *replicaIterator) AtT() int64  { return it.unit.batch.ts[it.i] }
func (it *replicaIterator) AtST() int64 { return it.unit.batch.st(it.i) }
func (it *replicaIterator) Err() error  { return it.err }

// match tells whether the unit still equals what was written, the sample at last included.
func (u *unit) match(wait *batch, last int) bool {
	if u.matched < 0 || u.batch.typ != wait.typ {
		return false
	}
	if u.matched == 0 {
		if wait.ts[last] < u.batch.ts[0] {
			return false // not yet
		}
		u.start = last
	}
	if !u.batch.same(u.matched, wait, last) {
		u.matched = -1
		return false
	}
	u.matched++
	return true
}

// same compares sample i of b with sample j of o to the bit. Hints of histograms
// are not compared: within a chunk they follow from its samples.
func (b *batch) same(i int, o *batch, j int) bool {
	if b.ts[i] != o.ts[j] || b.st(i) != o.st(j) {
		return false
	}
	switch b.typ {
	case chunkenc.ValFloat:
		return math.Float64bits(b.vs[i]) == math.Float64bits(o.vs[j])
	case chunkenc.ValHistogram:
		return b.hs[i].Equals(o.hs[j])
	default:
		return b.fhs[i].Equals(o.fhs[j])
	}
}

package merge

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/firnline/firnline/pkg/dedup"
)

// replica are the chunks that one replica has of a series, as sortChunks has them.
type replica struct {
	id     uint64
	chunks []chunk
}

// sortReplicas brings replicas into the order of dedup.Split, by which a querier
// has them: that of their first chunk.
func sortReplicas(replicas []*replica, src *chunkSource) error {
	var failed error
	slices.SortFunc(replicas, func(a, b *replica) int {
		x, y := a.chunks[0], b.chunks[0]
		if c := cmp.Or(cmp.Compare(x.mint, y.mint), cmp.Compare(x.maxt, y.maxt)); c != 0 {
			return c
		}
		encX, dataX, err := src.load(x)
		if err != nil {
			failed = err
			return 0
		}
		dataX = bytes.Clone(dataX)
		encY, dataY, err := src.load(y)
		if err != nil {
			failed = err
			return 0
		}
		return cmp.Or(cmp.Compare(encX, encY), bytes.Compare(dataX, dataY), cmp.Compare(a.id, b.id))
	})
	return failed
}

// isCounter tells whether the values of a series only rise, but for resets, as
// far as its name says so. A query knows it from the function it is for.
func isCounter(name string) bool {
	for _, suffix := range []string{"_total", "_sum", "_count", "_bucket"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

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

// deduplication makes one series of several replicas. What the algorithm
// returns is compared with the chunks it was read from: where it equals one
// from its first to its last sample, that chunk is copied.
type deduplication struct {
	kind  dedup.Kind
	src   *chunkSource
	sink  *sink
	iters []*replicaIterator

	wait batch // samples that are not written yet
	// The chunk that was copied last, nothing having been written since.
	lastIter, lastSeq int
}

// waitSamples is how many samples wait to be encoded together.
const waitSamples = 240

// run writes the series to the sink.
func (d *deduplication) run(m *series, replicas []*replica, counter bool) error {
	for len(d.iters) < len(replicas) {
		d.iters = append(d.iters, &replicaIterator{})
	}
	its := make([]chunkenc.Iterator, len(replicas))
	for i, r := range replicas {
		d.iters[i].begin(m, r)
		its[i] = d.iters[i]
	}
	d.wait.reset()
	d.lastIter = -1
	active := d.iters[:len(replicas)]
	it := dedup.New(d.kind, counter, its...)
	follower, _ := it.(dedup.Follower)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		if typ != d.wait.typ {
			if err := d.abandon(active); err != nil {
				return err
			}
			d.wait.typ = typ
		}
		d.wait.append(it)
		if err := d.match(active); err != nil {
			return err
		}
		if follower == nil {
			continue
		}
		if i, n := follower.Follow(); n > 0 {
			if err := d.follow(active, i, n); err != nil {
				return err
			}
		}
	}
	for _, i := range active {
		if i.err != nil {
			return i.err
		}
	}
	if err := it.Err(); err != nil {
		return err
	}
	return d.encode(d.wait.len())
}

func (it *replicaIterator) begin(m *series, r *replica) {
	it.reader.src, it.reader.counts = m.src, &m.counts
	it.reader.reset(m.cuts, r.chunks)
	it.spare = append(it.spare, it.opened...)
	it.unit, it.err, it.opened, it.i, it.seq = nil, nil, it.opened[:0], 0, 0
}

// append adds the current sample of it, which is of b's type.
func (b *batch) append(it chunkenc.Iterator) {
	var t int64
	switch b.typ {
	case chunkenc.ValFloat:
		var v float64
		t, v = it.At()
		b.vs = append(b.vs, v)
	case chunkenc.ValHistogram:
		var h *histogram.Histogram
		t, h = it.AtHistogram(nil)
		b.hs = append(b.hs, h)
	default:
		var fh *histogram.FloatHistogram
		t, fh = it.AtFloatHistogram(nil)
		b.fhs = append(b.fhs, fh)
	}
	st := it.AtST()
	if st != 0 || len(b.sts) > 0 {
		for len(b.sts) < len(b.ts) {
			b.sts = append(b.sts, 0)
		}
		b.sts = append(b.sts, st)
	}
	b.ts = append(b.ts, t)
}

// match compares the sample that came last with the chunks at its time, copies
// a chunk that is matched as a whole, and encodes what can't be part of one.
func (d *deduplication) match(iters []*replicaIterator) error {
	last := d.wait.len() - 1
	t := d.wait.ts[last]
	pending := false
	for i, it := range iters {
		it.pass(t)
		if len(it.opened) == 0 {
			continue
		}
		u := it.opened[0]
		if !u.match(&d.wait, last) {
			continue
		}
		pending = true
		if u.matched == u.batch.len() {
			return d.copy(iters, i, u)
		}
	}
	if !pending && d.wait.len() >= waitSamples {
		return d.encode(d.wait.len())
	}
	return nil
}

// follow takes the n samples that the iterator i has just passed over: the next
// ones of the result.
func (d *deduplication) follow(iters []*replicaIterator, i, n int) error {
	it := iters[i]
	u, from := it.unit, it.i+1-n
	if len(it.opened) == 0 || it.opened[0] != u || u.matched != from {
		differ(iters)
		d.wait.takeRange(&u.batch, from, from+n)
		if d.wait.len() >= waitSamples {
			return d.encode(d.wait.len())
		}
		return nil
	}
	u.matched += n
	if u.matched == u.batch.len() {
		return d.copy(iters, i, u)
	}
	d.wait.takeRange(&u.batch, from, from+n)
	return nil
}

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

// copy hands on a chunk whose samples are the last ones that wait.
func (d *deduplication) copy(iters []*replicaIterator, i int, u *unit) error {
	if u.start > 0 {
		if err := d.encode(u.start); err != nil {
			return err
		}
	}
	u.piece.broken = u.piece.broken || d.lastIter != i || d.lastSeq != u.seq-1
	if err := d.sink.copy(&u.piece); err != nil {
		return err
	}
	d.wait.reset()
	d.wait.typ = u.batch.typ
	d.lastIter, d.lastSeq = i, u.seq
	differ(iters)
	return nil
}

// abandon encodes all that waits.
func (d *deduplication) abandon(iters []*replicaIterator) error {
	differ(iters)
	return d.encode(d.wait.len())
}

// differ gives up the chunks that were matched in part.
func differ(iters []*replicaIterator) {
	for _, it := range iters {
		if len(it.opened) > 0 && it.opened[0].matched > 0 {
			it.opened[0].matched = -1
		}
	}
}

// encode writes the first n samples that wait and forgets all of them; the
// others are those of a chunk about to be copied.
func (d *deduplication) encode(n int) error {
	if n > 0 {
		d.lastIter = -1
		if err := d.sink.add(&d.wait, 0, n); err != nil {
			return err
		}
	}
	typ := d.wait.typ
	d.wait.reset()
	d.wait.typ = typ
	return nil
}

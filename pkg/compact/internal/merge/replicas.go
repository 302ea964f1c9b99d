package merge

import (
	"bytes"
	"cmp"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"

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

// run writes the series to the sink. Penalty begins anew where no chunk reaches
// over and other replicas go on than were there before: it holds them back until
// it knows that the others have ended. So it would lose samples behind a block
// that was deduplicated before, and take a reset there for a lag. To Thanos, too,
// chunks that don't overlap are one replica's.
func (d *deduplication) run(m *series, replicas []*replica, counter bool) error {
	if d.kind != dedup.Penalty {
		return d.stretch(m, replicas, counter)
	}
	for _, until := range handovers(replicas) {
		var part []*replica
		for _, r := range replicas {
			n := sort.Search(len(r.chunks), func(i int) bool { return r.chunks[i].mint >= until })
			if n > 0 {
				part = append(part, &replica{id: r.id, chunks: r.chunks[:n]})
			}
			r.chunks = r.chunks[n:]
		}
		if err := sortReplicas(part, d.src); err != nil {
			return err
		}
		if err := d.stretch(m, part, counter); err != nil {
			return err
		}
	}
	return nil
}

// handovers returns the times at which all chunks before have ended and those of
// other replicas begin, and the end of time.
func handovers(replicas []*replica) (times []int64) {
	type owned struct {
		chunk
		by int
	}
	var all []owned
	for i, r := range replicas {
		for _, c := range r.chunks {
			all = append(all, owned{c, i})
		}
	}
	slices.SortStableFunc(all, func(a, b owned) int { return cmp.Compare(a.mint, b.mint) })
	var before map[int]bool
	for pos := 0; pos < len(all); {
		now, start, maxt := map[int]bool{}, all[pos].mint, all[pos].maxt
		for ; pos < len(all) && all[pos].mint <= maxt; pos++ {
			maxt = max(maxt, all[pos].maxt)
			now[all[pos].by] = true
		}
		if before != nil && !maps.Equal(before, now) {
			times = append(times, start)
		}
		before = now
	}
	return append(times, math.MaxInt64)
}

// stretch writes what the algorithm makes of some replicas.
func (d *deduplication) stretch(m *series, replicas []*replica, counter bool) error {
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

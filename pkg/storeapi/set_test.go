package storeapi

import (
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"strconv"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// chunk returns a raw chunk whose bytes are told apart by tag.
func chunk(mint, maxt int64, tag byte) Chunk {
	return Chunk{MinTime: mint, MaxTime: maxt, Raw: Data{Encoding: chunkenc.EncXOR, Bytes: []byte{0, 1, tag}}}
}

func series(chunks []Chunk, pairs ...string) Series {
	return Series{Labels: labels.FromStrings(pairs...), Chunks: chunks}
}

func read(set SeriesSet) (out []Series) {
	for set.Next() {
		at := set.At()
		out = append(out, Series{Labels: at.Labels, Chunks: slices.Clone(at.Chunks)})
	}
	return out
}

func TestMerge(t *testing.T) {
	id := ulid.MustNew(1, nil)
	a := SliceSet([]Series{
		series([]Chunk{chunk(0, 10, 1), chunk(20, 30, 1)}, "a", "1"),
		series([]Chunk{chunk(0, 10, 9)}, "a", "3"),
	}, Report{Warnings: []string{"a is slow"}, Stats: Stats{BlocksQueried: 1}})
	b := SliceSet([]Series{
		series([]Chunk{chunk(0, 10, 1), chunk(0, 10, 2), chunk(5, 9, 1), chunk(20, 30, 1)}, "a", "1"),
		series([]Chunk{chunk(0, 10, 5)}, "a", "2"),
	}, Report{QueriedBlocks: []ulid.ULID{id}, Stats: Stats{BlocksQueried: 2}})
	m := Merge(a, EmptySet(Report{}), b)
	defer m.Close()

	require.Equal(t, []Series{
		series([]Chunk{chunk(0, 10, 1), chunk(0, 10, 2), chunk(5, 9, 1), chunk(20, 30, 1)}, "a", "1"),
		series([]Chunk{chunk(0, 10, 5)}, "a", "2"),
		series([]Chunk{chunk(0, 10, 9)}, "a", "3"),
	}, read(m))
	require.NoError(t, m.Err())
	require.False(t, m.Next())
	require.Equal(t, Report{Warnings: []string{"a is slow"}, QueriedBlocks: []ulid.ULID{id}, Stats: Stats{BlocksQueried: 3}}, m.Report())
}

// Aggregates are duplicates only when all five are.
func TestMergeAggregates(t *testing.T) {
	aggr := func(sum byte) Chunk {
		return Chunk{MaxTime: 1, Aggr: &Aggregates{Count: Data{1, []byte{0, 1, 1}}, Sum: Data{1, []byte{0, 1, sum}}}}
	}
	m := Merge(
		SliceSet([]Series{series([]Chunk{aggr(1)}, "a", "1")}, Report{}),
		SliceSet([]Series{series([]Chunk{aggr(1), aggr(2)}, "a", "1")}, Report{}),
	)
	require.Equal(t, []Series{series([]Chunk{aggr(1), aggr(2)}, "a", "1")}, read(m))
}

func TestMergeErrors(t *testing.T) {
	broken := errors.New("broken")
	one := []Series{series(nil, "a", "1")}

	m := Merge(SliceSet(one, Report{}), ErrSet(broken))
	require.False(t, m.Next())
	require.ErrorIs(t, m.Err(), broken)

	m = Merge(SliceSet([]Series{series(nil, "a", "2"), one[0]}, Report{}))
	require.Len(t, read(m), 1)
	require.ErrorIs(t, m.Err(), ErrCorrupt)

	m = Merge(SliceSet(one, Report{}), SliceSet(one, Report{}))
	m.Close()
	m.Close()
	require.False(t, m.Next())
	require.NoError(t, m.Err())

	require.False(t, Merge().Next())
}

// A merge of random sets is what sorting everything gives.
func TestMergeRandom(t *testing.T) {
	for seed := range int64(200) {
		rnd := rand.New(rand.NewSource(seed))
		want := map[string][]Chunk{}
		var sets []SeriesSet
		for range 1 + rnd.Intn(9) {
			var all []Series
			for v := range 20 {
				if rnd.Intn(3) > 0 {
					continue
				}
				c := chunk(int64(rnd.Intn(3)), 5, byte(rnd.Intn(2)))
				all = append(all, series([]Chunk{c}, "a", fmt.Sprintf("%02d", v)))
				key := all[len(all)-1].Labels.String()
				want[key] = append(want[key], c)
			}
			sets = append(sets, SliceSet(all, Report{}))
		}
		m := Merge(sets...)
		got := read(m)
		require.NoError(t, m.Err())
		require.Len(t, got, len(want), "seed %d", seed)
		require.True(t, slices.IsSortedFunc(got, func(a, b Series) int { return labels.Compare(a.Labels, b.Labels) }), "seed %d", seed)
		for _, s := range got {
			w := want[s.Labels.String()]
			require.True(t, slices.IsSortedFunc(s.Chunks, compareTimes), "seed %d", seed)
			require.ElementsMatch(t, distinct(w), s.Chunks, "seed %d", seed)
		}
	}
}

// distinct drops repeated chunks the slow way.
func distinct(in []Chunk) (out []Chunk) {
	for _, c := range in {
		if !slices.ContainsFunc(out, func(o Chunk) bool { return compareChunks(c, o) == 0 }) {
			out = append(out, c)
		}
	}
	return out
}

// What is merged does not depend on the order of the sets.
func TestMergeOrderOfSets(t *testing.T) {
	sets := [][]Series{
		{series([]Chunk{chunk(0, 10, 3), chunk(0, 10, 5)}, "a", "1")},
		{series([]Chunk{chunk(0, 10, 4)}, "a", "1")},
		{series([]Chunk{chunk(0, 10, 1), {MaxTime: 10, Aggr: &Aggregates{}}}, "a", "1")},
	}
	want := read(Merge(SliceSet(sets[0], Report{}), SliceSet(sets[1], Report{}), SliceSet(sets[2], Report{})))
	got := read(Merge(SliceSet(sets[2], Report{}), SliceSet(sets[0], Report{}), SliceSet(sets[1], Report{})))
	require.Len(t, want[0].Chunks, 5)
	require.Equal(t, want, got)
}

func TestLimit(t *testing.T) {
	all := []Series{series(nil, "a", "1"), series(nil, "a", "2"), series(nil, "a", "3")}
	for limit, want := range map[int]int{-1: 3, 0: 3, 1: 1, 2: 2, 3: 3, 4: 3} {
		require.Len(t, read(Limit(SliceSet(all, Report{}), limit)), want)
	}
}

// Adding or removing labels gives what sorting the changed series gives.
func TestExtendedRandom(t *testing.T) {
	names := []string{"a", "c", "e", "g", "i"}
	for seed := range int64(3000) {
		rnd := rand.New(rand.NewSource(seed))
		clash := rnd.Intn(2) == 0
		var all []Series
		for range 1 + rnd.Intn(40) {
			var pairs []string
			for _, n := range names {
				if rnd.Intn(2) == 0 {
					pairs = append(pairs, n, strconv.Itoa(rnd.Intn(2)))
				}
			}
			all = append(all, series([]Chunk{chunk(int64(rnd.Intn(3)), 5, 0)}, pairs...))
		}
		all = read(Sorted(SliceSet(all, Report{}), NewExtender(labels.EmptyLabels(), nil)))

		others := []string{"b", "d", "f", "h", "j", "B"}
		if clash {
			others = append(others, names...)
		}
		b := labels.NewBuilder(labels.EmptyLabels())
		var without []string
		for _, n := range others {
			if rnd.Intn(3) == 0 {
				b.Set(n, "x")
			}
			if rnd.Intn(4) == 0 {
				without = append(without, n)
			}
		}
		ext := b.Labels()
		e := NewExtender(ext, without)
		want := read(Sorted(SliceSet(all, Report{}), e))
		got := Extended(SliceSet(all, Report{}), ext, without, clash)
		require.Equal(t, want, read(got), "seed %d: %s without %v", seed, ext, without)
		require.NoError(t, got.Err())
		got.Close()
	}
}

func TestExtendedHoldsBackLittle(t *testing.T) {
	var all []Series
	for i := range 1000 {
		v := fmt.Sprintf("%04d", i)
		all = append(all, series(nil, "a", v), series(nil, "a", v, "b", "1"), series(nil, "a", v, "b", "1", "c", "1"))
	}
	set := Extended(SliceSet(all, Report{}), labels.FromStrings("z", "1"), nil, false).(*extendedSet)
	for set.Next() {
		require.LessOrEqual(t, len(set.stack), 3)
	}
	require.LessOrEqual(t, len(set.free), 5)
}

func TestExtendedClashUnannounced(t *testing.T) {
	for _, without := range [][]string{nil, {"a"}} {
		ext := labels.FromStrings("b", "1")
		set := Extended(SliceSet([]Series{series(nil, "a", "1", "b", "2")}, Report{}), ext, without, false)
		require.False(t, set.Next())
		require.ErrorIs(t, set.Err(), ErrUnavailable)
	}
}

func TestSharded(t *testing.T) {
	var all, parts []Series
	for i := range 50 {
		all = append(all, series(nil, "a", fmt.Sprintf("%02d", i)))
	}
	for i := range int64(3) {
		part := read(Sharded(SliceSet(all, Report{}), &Shard{Index: i, Total: 3}))
		require.NotEmpty(t, part)
		parts = append(parts, part...)
	}
	require.ElementsMatch(t, all, parts)
	require.Len(t, read(Sharded(SliceSet(all, Report{}), nil)), 50)
}

func TestChunkRefusesShortData(t *testing.T) {
	for enc := chunkenc.EncNone; enc <= 9; enc++ {
		for n := range 3 {
			d := Data{Encoding: enc, Bytes: make([]byte, n)}
			c, err := d.Chunk()
			if enc == chunkenc.EncXOR && n == 2 {
				require.NoError(t, err)
				require.Zero(t, c.NumSamples())
				continue
			}
			require.ErrorIs(t, err, ErrCorrupt, "encoding %s of %d bytes", enc, n)
		}
	}
}

// benchSeries has n series of ten chunks of 120 samples' size.
func benchSeries(n int) []Series {
	out := make([]Series, n)
	data := make([]byte, 160)
	for i := range out {
		out[i].Labels = labels.FromStrings("__name__", "http_requests_total", "instance", fmt.Sprintf("10.0.0.%06d:9090", i), "job", "api", "namespace", "default")
		for c := range int64(10) {
			out[i].Chunks = append(out[i].Chunks, Chunk{MinTime: c * 1000, MaxTime: c*1000 + 900, Raw: Data{chunkenc.EncXOR, data}})
		}
	}
	return out
}

func BenchmarkMerge(b *testing.B) {
	const n = 2000
	in := benchSeries(n)
	for _, k := range []int{1, 2, 16, 64} {
		b.Run(fmt.Sprintf("sets=%d/series=%d", k, n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sets := make([]SeriesSet, k)
				for i := range sets {
					sets[i] = SliceSet(in, Report{})
				}
				m := Merge(sets...)
				for m.Next() {
				}
				if m.Err() != nil {
					b.Fatal(m.Err())
				}
			}
		})
	}
}

func BenchmarkExtended(b *testing.B) {
	const n = 2000
	in := benchSeries(n)
	ext := labels.FromStrings("cluster", "eu-1", "replica", "a")
	for _, clash := range []bool{false, true} {
		b.Run(fmt.Sprintf("clash=%v/series=%d", clash, n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				set := Extended(SliceSet(in, Report{}), ext, nil, clash)
				for set.Next() {
				}
			}
		})
	}
}

// What tells replicas apart is the labels taken away, wherever they were.
func TestExtendedMarksReplicas(t *testing.T) {
	one := func() SeriesSet { return SliceSet([]Series{series([]Chunk{chunk(1, 2, 0)}, "a", "1")}, Report{}) }
	replica := func(set SeriesSet) uint32 {
		all := read(set)
		require.Len(t, all, 1)
		require.Len(t, all[0].Chunks, 1)
		return all[0].Chunks[0].Replica
	}
	ext := func(r string) labels.Labels { return labels.FromStrings("cluster", "x", "replica", r) }
	without := []string{"replica"}
	a := replica(Extended(one(), ext("a"), without, false))
	require.NotZero(t, a)
	require.Equal(t, a, replica(Extended(one(), ext("a"), without, true)), "sorted or not")
	require.NotEqual(t, a, replica(Extended(one(), ext("b"), without, false)))
	require.Zero(t, replica(Extended(one(), ext("a"), nil, false)), "nothing is taken away")

	inner := SliceSet([]Series{series([]Chunk{chunk(1, 2, 0)}, "a", "1", "replica", "a")}, Report{})
	require.Equal(t, a, replica(Sorted(inner, NewExtender(labels.EmptyLabels(), without))))

	// Equal chunks of two replicas are kept, in the same order whoever comes first.
	merged := func(first, second string) []Chunk {
		all := read(Merge(Extended(one(), ext(first), without, false), Extended(one(), ext(second), without, false)))
		require.Len(t, all, 1)
		return all[0].Chunks
	}
	require.Len(t, merged("a", "b"), 2)
	require.Equal(t, merged("a", "b"), merged("b", "a"))
	require.Len(t, merged("a", "a"), 1)
}

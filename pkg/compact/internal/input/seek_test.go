package input_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/block/layout"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact/internal/input"
)

// wideBlock is one whose series take 3 MB of the index.
func wideBlock(t testing.TB) (*bucket.Memory, *block.Meta, string) {
	var in []blocktest.Series
	for i := range 60_000 {
		in = append(in, blocktest.Series{
			Labels:  labels.FromStrings("__name__", fmt.Sprintf("m%d", i%10), "instance", fmt.Sprintf("host-%06d", i)),
			Samples: []blocktest.Sample{{T: int64(i), F: 1}, {T: int64(i) + 90_000, F: 2}},
		})
	}
	return upload(t, in, blocktest.Options{SamplesPerChunk: 1})
}

// seekTo makes a predicate that is true for the first n of a block's series,
// which it knows by the times of their chunks, and counts its calls.
func seekTo(order map[int64]int, n int, calls *int) func(*input.Series) (bool, error) {
	return func(s *input.Series) (bool, error) {
		*calls++
		i, ok := order[s.Chunks[0].MinTime]
		if !ok {
			return false, fmt.Errorf("no series begins at %d", s.Chunks[0].MinTime)
		}
		return i < n, nil
	}
}

// inOrder reads a block's series through: their first times, and the place of each.
func inOrder(t *testing.T, bkt block.Bucket, m *block.Meta) (times []int64, order map[int64]int) {
	b, err := input.Open(t.Context(), bkt, m, input.Config{})
	require.NoError(t, err)
	defer b.Close()
	order = map[int64]int{}
	for {
		s, err := b.Next(t.Context())
		if err == io.EOF {
			return times, order
		}
		require.NoError(t, err)
		order[s.Chunks[0].MinTime] = len(times)
		times = append(times, s.Chunks[0].MinTime)
	}
}

// TestSeek: from any series on, whether the postings are right, or lie, or are
// lost: these only make it quick. A failure prints the seed.
func TestSeek(t *testing.T) {
	bkt, m, _ := wideBlock(t)
	times, order := inOrder(t, bkt, m)
	require.Len(t, times, 60_000)

	check := func(bkt block.Bucket, n, window int) (calls int) {
		b, err := input.Open(t.Context(), bkt, m, input.Config{WindowBytes: int64(window)})
		require.NoError(t, err)
		defer b.Close()
		require.NoError(t, b.Seek(t.Context(), seekTo(order, n, &calls)))
		for i := n; i < min(n+3, len(times)); i++ {
			s, err := b.Next(t.Context())
			require.NoError(t, err)
			require.Equal(t, times[i], s.Chunks[0].MinTime, "to %d", n)
		}
		if n >= len(times)-2 {
			_, err := b.Next(t.Context())
			require.Equal(t, io.EOF, err)
		}
		return calls
	}
	targets := []int{0, 1, 2, 29_999, 30_000, 59_998, 59_999, 60_000}
	rnd := rand.New(rand.NewPCG(1, 0))
	for range 20 {
		targets = append(targets, rnd.IntN(60_000))
	}
	for _, n := range targets {
		calls := check(bkt, n, 1<<rnd.IntN(20)+100)
		require.Less(t, calls, 256<<10/32+20, "to %d", n)
	}

	toc, refs := postingsOf(t, bkt, m)
	name := block.Name(m.ULID, block.IndexFilename)
	whole := bkt.Objects()[name]
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		data := bytes.Clone(whole)
		switch rnd.IntN(4) {
		case 0: // other references
			for range 20_000 {
				data[refs.Start+int64(rnd.IntN(int(refs.Len())))] ^= byte(rnd.IntN(256))
			}
		case 1: // the references of other series, in another order
			some := data[refs.Start+layout.PostingsHeadLen : refs.End-4]
			rnd.Shuffle(len(some)/4, func(i, j int) {
				a, b := binary.BigEndian.Uint32(some[4*i:]), binary.BigEndian.Uint32(some[4*j:])
				binary.BigEndian.PutUint32(some[4*i:], b)
				binary.BigEndian.PutUint32(some[4*j:], a)
			})
		case 2: // another count
			data[refs.Start+7] ^= 0xff
		default: // no table
			data[toc.PostingsTable.Start+8+int64(rnd.IntN(4))] ^= 0x55
		}
		put(t, bkt, name, data)
		check(bkt, targets[rnd.IntN(len(targets))], 1<<16)
	}
}

// postingsOf finds the sections of a block's index and its list of all series.
func postingsOf(t *testing.T, bkt block.Bucket, m *block.Meta) (layout.TOC, layout.Span) {
	r, err := block.OpenRemote(t.Context(), bkt, m, nil)
	require.NoError(t, err)
	toc, err := r.TOC(t.Context())
	require.NoError(t, err)
	refs, err := block.OpenSeriesRefs(t.Context(), &r.Index, toc, 0)
	require.NoError(t, err)
	return toc, refs.Place
}

// TestSeekEvery: to every series of a block, with other calls before and after.
func TestSeekEvery(t *testing.T) {
	in := series(30, 20)[3:]
	for i := range in {
		in[i].Samples = []blocktest.Sample{{T: int64(i), F: 1}}
	}
	bkt, m, _ := upload(t, in, blocktest.Options{})
	times, order := inOrder(t, bkt, m)
	b, err := input.Open(t.Context(), bkt, m, input.Config{WindowBytes: 256})
	require.NoError(t, err)
	defer b.Close()
	calls := 0
	for n := len(times); n >= 0; n-- {
		require.NoError(t, b.Seek(t.Context(), seekTo(order, n, &calls)))
		for i := n; i < len(times); i++ {
			s, err := b.Next(t.Context())
			require.NoError(t, err)
			require.Equal(t, times[i], s.Chunks[0].MinTime)
		}
		_, err := b.Next(t.Context())
		require.Equal(t, io.EOF, err)
	}
	lost := errors.New("unknown symbol")
	require.ErrorIs(t, b.Seek(t.Context(), func(*input.Series) (bool, error) { return true, lost }), lost)
}

// TestSymbolsFirst: what a series refers to is among the symbols, once these
// have been read; and reading series ends an unfinished reading of symbols.
func TestSymbolsFirst(t *testing.T) {
	bkt, m, _ := upload(t, series(20, 20), blocktest.Options{})
	b, err := input.Open(t.Context(), bkt, m, input.Config{WindowBytes: 64})
	require.NoError(t, err)
	defer b.Close()
	s := b.Symbols(t.Context())
	require.True(t, s.Next())
	_, err = b.Next(t.Context())
	require.NoError(t, err)
	require.False(t, s.Next())
	require.ErrorContains(t, s.Err(), "symbols are read no further")
}

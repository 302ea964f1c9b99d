package replay

import (
	"bytes"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
	"github.com/stretchr/testify/require"
)

// FuzzRecord: what the TSDB's decoder takes, ours takes, with as many series and samples in it;
// what it refuses, ours refuses, and nothing makes it panic.
func FuzzRecord(f *testing.F) {
	var enc record.Encoder
	f.Add(enc.Series([]record.RefSeries{
		{Ref: 1, Labels: labels.FromStrings("name", "a", "job", "x")}, {Ref: 1 << 20, Labels: labels.FromStrings("name", "b")}, {Ref: 3},
	}, nil))
	f.Add(enc.Samples([]record.RefSample{{Ref: 1, T: 5, V: 1}, {Ref: 300, T: -5, V: math.NaN()}}, nil))
	f.Add([]byte{byte(record.Samples), 0})
	f.Add([]byte{byte(record.Series), 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, rec []byte) {
		theirs := record.NewDecoder(labels.NewSymbolTable(), slog.New(slog.DiscardHandler))
		p := &replaying{series: newTable(), mint: math.MaxInt64}
		switch theirs.Type(rec) {
		case record.Samples:
			want, err := theirs.Samples(rec, nil)
			if err != nil {
				require.Error(t, readRecord(p, rec))
				return
			}
			require.NoError(t, readRecord(p, rec))
			require.Equal(t, len(want), p.stats.Samples)
		case record.Series:
			want, err := theirs.Series(rec, nil)
			if err != nil {
				require.Error(t, readRecord(p, rec))
				return
			}
			refs := map[chunks.HeadSeriesRef]bool{}
			for _, s := range want {
				refs[s.Ref] = true
			}
			if readRecord(p, rec) != nil {
				return // a reference twice, or absurd
			}
			got := 0
			_ = p.series.all(func(ref chunks.HeadSeriesRef, _ *series) error {
				require.True(t, refs[ref])
				got++
				return nil
			})
			require.Equal(t, len(refs), got+len(p.series.aliases))
		}
	})
}

// readRecord does with a record what is done before samples are encoded.
func readRecord(p *replaying, rec []byte) error {
	b := &batch{raw: rec, records: []rawRecord{{end: len(rec)}}, picked: make([][]sample, 1)}
	if err := newScanner(p, 1).scan(b); err != nil {
		return err
	}
	p.stats.Samples += b.samples
	s := sequencer{pipeline: newPipeline(p), dec: record.NewDecoder(labels.NewSymbolTable(), slog.New(slog.DiscardHandler))}
	return s.rest(b)
}

// TestRecordWriter: records of all sizes about the ends of pages are read back.
func TestRecordWriter(t *testing.T) {
	dir := t.TempDir()
	p := &replaying{dir: dir, series: newTable()}
	var want [][]byte
	for i, size := range []int{1, 10, logPage - 20, logPage - 40, 1, 2, 3, 5, logPage, 3 * logPage, logPage - logHeader, 100, 2*logPage - 300} {
		lset := []byte{1, 1, 'n'}
		value := bytes.Repeat([]byte{byte('a' + i)}, size)
		lset = append(append(lset, uvarint(uint64(size))...), value...)
		want = append(want, lset)
		require.NoError(t, p.series.define(chunks.HeadSeriesRef(len(want)), lset, 0, nil))
	}
	require.NoError(t, p.writeSnapshot(7))
	in, err := wlog.NewSegmentsReader(filepath.Join(dir, "chunk_snapshot.000007.0000000000"))
	require.NoError(t, err)
	defer in.Close()
	r := wlog.NewReader(in)
	for _, lset := range want {
		require.True(t, r.Next(), r.Err())
		require.True(t, bytes.Contains(r.Record(), lset))
	}
	require.False(t, r.Next())
	require.NoError(t, r.Err())
}

func uvarint(n uint64) []byte {
	var b []byte
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// TestUnsure: what is not known for certain is left to the TSDB, and nothing stays behind.
func TestUnsure(t *testing.T) {
	var enc record.Encoder
	a, b := labels.FromStrings("name", "a"), labels.FromStrings("name", "b")
	series := func(ref chunks.HeadSeriesRef, l labels.Labels) []byte {
		return enc.Series([]record.RefSeries{{Ref: ref, Labels: l}}, nil)
	}
	sample := func(ref chunks.HeadSeriesRef, at int64) []byte {
		return enc.Samples([]record.RefSample{{Ref: ref, T: at, V: 1}}, nil)
	}
	for _, c := range []struct {
		name    string
		records [][]byte
		unsure  bool
	}{
		{"plain", [][]byte{series(1, a), sample(1, 2000)}, false},
		{"sample of no series", [][]byte{series(1, a), sample(2, 2000)}, true},
		{"old sample of no series", [][]byte{series(1, a), sample(2, 500)}, false},
		{"series came back", [][]byte{series(1, a), sample(1, 500), series(2, a), sample(2, 2000)}, false},
		{"series came back, and its past is needed", [][]byte{series(1, a), sample(1, 1500), series(2, a), sample(2, 2000)}, true},
		{"series came back, and is called as before", [][]byte{series(1, a), series(2, a), sample(1, 2000)}, true},
		{"reference of two series", [][]byte{series(1, a), series(1, b)}, true},
		{"the same twice", [][]byte{series(1, a), sample(1, 2000), series(1, a), sample(1, 3000)}, false},
		{"absurd reference", [][]byte{series(1<<40, a)}, true},
		{"short record", [][]byte{{byte(record.Samples), 1, 2}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			w, err := wlog.New(slog.New(slog.DiscardHandler), nil, filepath.Join(dir, walDir), compression.None)
			require.NoError(t, err)
			require.NoError(t, w.Log(c.records...))
			require.NoError(t, w.Close())
			_, err = Prepare(dir, configFor(tsdbOptions(false), 1000))
			if !c.unsure {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrUnsure)
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			for _, e := range entries {
				require.Contains(t, []string{walDir, chunksDir}, e.Name())
			}
		})
	}
	_, err := Prepare(t.TempDir(), configFor(tsdbOptions(false), 1000))
	require.ErrorIs(t, err, ErrNoLog)
}

// TestPageBetween: a page of references before others that are there may be made while encoders
// look for series.
func TestPageBetween(t *testing.T) {
	table := newTable()
	require.True(t, table.set(2*pageSize, &series{}))
	pages, looked := table.pages, make(chan *series)
	go func() { looked <- seriesAt(pages, pageSize) }() // the race detector sees the two
	require.True(t, table.set(pageSize, &series{}))
	require.Nil(t, <-looked)
	require.NotNil(t, table.at(pageSize))
	require.NotNil(t, table.at(2*pageSize))
}

// TestUndo: chunks that were written are taken away again when the snapshot can't be.
func TestUndo(t *testing.T) {
	dir := t.TempDir()
	o := tsdbOptions(false)
	w := &world{t: t, rand: newRand(1), db: open(t, dir, o), now: 10 * blockRange}
	for range 40 {
		w.step()
	}
	killed := kill(t, dir) // no chunk was written yet
	require.NoError(t, w.db.Close())
	cfg := configFor(o, math.MinInt64)
	cfg.Disk = func(int64) error { return os.ErrPermission }
	_, err := Prepare(killed, cfg)
	require.ErrorIs(t, err, os.ErrPermission)
	left, err := os.ReadDir(filepath.Join(killed, chunksDir))
	require.NoError(t, err)
	require.Empty(t, left)

	cfg.Disk = nil
	stats, err := Prepare(killed, cfg)
	require.NoError(t, err)
	require.Positive(t, stats.Encoded)
	left, err = os.ReadDir(filepath.Join(killed, chunksDir))
	require.NoError(t, err)
	require.NotEmpty(t, left)
}

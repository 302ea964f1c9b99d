package notes

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
)

var now = time.UnixMilli(1_700_000_000_000)

func newConfig() Config {
	var cfg Config
	cfg.RegisterFlags("", flag.NewFlagSet("", flag.ContinueOnError))
	return cfg
}

func openLog(t testing.TB, dir string, cfg Config) (*Log, *Metrics) {
	t.Helper()
	m := NewMetrics(prometheus.NewRegistry())
	l, err := OpenLog(dir, cfg, m, now)
	require.NoError(t, err)
	return l, m
}

// one returns a series with exemplars at so many ms after now.
func one(name string, after ...int64) Series {
	s := Series{Labels: labels.FromStrings("__name__", name)}
	for _, ms := range after {
		s.Exemplars = append(s.Exemplars, exemplar.Exemplar{
			Labels: labels.FromStrings("trace_id", fmt.Sprintf("%s%d", name, ms)), Value: float64(ms) / 3, Ts: now.UnixMilli() + ms, HasTs: true,
		})
	}
	return s
}

func randomNote(r *rand.Rand) *Note {
	n := &Note{MinTime: r.Int64N(1000) - 500}
	n.MaxTime = n.MinTime + r.Int64N(7_200_000)
	text := func() string { return []string{"", "a", "b", "counter", "Some help. ✓"}[r.IntN(5)] }
	for range r.IntN(6) {
		n.Families = append(n.Families, Family{Name: text(), Type: text(), Help: text(), Unit: text()})
	}
	for range r.IntN(6) {
		n.Series = append(n.Series, one(fmt.Sprint("m", r.IntN(4)), r.Int64N(50), r.Int64N(50), r.Int64N(50)))
	}
	return n
}

// TestRoundTrip: what is read is what was written, sorted and each once.
func TestRoundTrip(t *testing.T) {
	bkt := bucket.NewMemory()
	for seed := range uint64(200) {
		n := randomNote(rand.New(rand.NewPCG(seed, 0)))
		families, exemplars := map[Family]bool{}, map[string]bool{}
		for _, f := range n.Families {
			families[f] = true
		}
		for _, s := range n.Series {
			for _, e := range s.Exemplars {
				exemplars[fmt.Sprint(s.Labels, e)] = true
			}
		}
		id := ulid.MustNew(seed, nil)
		require.NoError(t, Upload(t.Context(), bkt, id, n), "seed %d", seed)
		got, err := Read(t.Context(), bkt, id)
		if len(families)+len(exemplars) == 0 {
			require.ErrorIs(t, err, ErrNone, "seed %d", seed)
			continue
		}
		require.NoError(t, err, "seed %d", seed)
		require.Equal(t, n.MinTime, got.MinTime)
		require.Equal(t, n.MaxTime, got.MaxTime)
		require.Len(t, got.Families, len(families), "seed %d", seed)
		require.Equal(t, len(exemplars), got.Exemplars(), "seed %d", seed)
		for _, s := range got.Series {
			for _, e := range s.Exemplars {
				require.True(t, exemplars[fmt.Sprint(s.Labels, e)], "seed %d: %v", seed, e)
			}
		}
	}
}

// TestBadBytes: no changed byte goes unnoticed, and a newer version is not guessed at.
func TestBadBytes(t *testing.T) {
	n := &Note{MaxTime: 10, Families: []Family{{"up", "gauge", "Whether it is up.", ""}}, Series: []Series{one("up", 1, 2)}}
	data, err := n.Encode()
	require.NoError(t, err)
	for i := range data {
		for _, bad := range [][]byte{slices.Concat(data[:i], []byte{data[i] ^ 4}, data[i+1:]), data[:i]} {
			_, err := Decode(bad)
			require.True(t, errors.Is(err, block.ErrCorrupt) || errors.Is(err, block.ErrUnknownVersion), "byte %d: %v", i, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for seed := range uint64(20) {
		data, err := randomNote(rand.New(rand.NewPCG(seed, 1))).Encode()
		require.NoError(f, err)
		f.Add(data)
		content, err := frame().Unseal(data)
		require.NoError(f, err)
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Decode(data); err != nil {
			require.True(t, errors.Is(err, block.ErrCorrupt) || errors.Is(err, block.ErrUnknownVersion), err)
		}
		n, err := decodeContent(data) // which no checksum protects
		if err != nil {
			require.ErrorIs(t, err, block.ErrCorrupt)
			return
		}
		once, err := n.Encode()
		require.NoError(t, err)
		again, err := Decode(once)
		require.NoError(t, err)
		twice, err := again.Encode()
		require.NoError(t, err)
		require.Equal(t, once, twice)
	})
}

// FuzzSegment: whatever is in a file, what is taken stays taken after another opening.
func FuzzSegment(f *testing.F) {
	dir := f.TempDir()
	l, _ := openLog(f, dir, newConfig())
	require.NoError(f, l.Add([]Series{one("a", 1, 2), one("b", 3)}))
	data, err := os.ReadFile(filepath.Join(dir, "00000001.log"))
	require.NoError(f, err)
	f.Add(data)
	f.Add(data[:len(data)-3])
	f.Fuzz(func(t *testing.T, data []byte) {
		n := 0
		good := eachRecord(data, func(s Series) { n += len(s.Exemplars) })
		again := 0
		require.Equal(t, good, eachRecord(data[:good], func(s Series) { again += len(s.Exemplars) }))
		require.Equal(t, n, again)
	})
}

// TestLogCut: a note has the exemplars of its time, each once, also after a
// restart without a close, as after a kill.
func TestLogCut(t *testing.T) {
	dir := t.TempDir()
	l, m := openLog(t, dir, newConfig())
	_, ok := l.Latest()
	require.False(t, ok)
	at := now.UnixMilli()
	require.NoError(t, l.Mention([]Family{{"a", "counter", "How many.", ""}}, now))
	require.NoError(t, l.Add([]Series{one("b", 5, 10), one("a", 0, 99, 100)}))
	require.NoError(t, l.Add([]Series{one("a", 50, 99), {Labels: labels.FromStrings("__name__", "none")}}))
	check := func(l *Log) {
		n := l.Cut(at, at+100)
		require.Equal(t, []Family{{"a", "counter", "How many.", ""}}, n.Families)
		require.Equal(t, []Series{one("a", 0, 50, 99), one("b", 5, 10)}, n.Series)
		require.Equal(t, []Series{one("a", 100)}, l.Cut(at+100, at+200).Series)
		latest, ok := l.Latest()
		require.True(t, ok)
		require.Equal(t, at+100, latest)
	}
	check(l)
	require.Equal(t, 7.0, testutil.ToFloat64(m.exemplars))
	l, m = openLog(t, dir, newConfig())
	check(l)
	require.Zero(t, testutil.ToFloat64(m.torn))
	require.NoError(t, l.Add([]Series{one("c", 20)}), "a new file is begun")
	require.Equal(t, []Series{one("c", 20)}, l.Cut(at+20, at+21).Series)
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Add([]Series{one("c", 20)}), errClosed)
}

// TestLogTorn: cut short anywhere, a log opens with all whole records before it
// and goes on.
//
// RELIABILITY P9
func TestLogTorn(t *testing.T) {
	dir := t.TempDir()
	l, _ := openLog(t, dir, newConfig())
	for i := range int64(3) {
		require.NoError(t, l.Add([]Series{one("a", i)}))
	}
	path := filepath.Join(dir, "00000001.log")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	record := (len(data) - segmentHead) / 3
	at := now.UnixMilli()
	for n := range data {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "00000001.log"), data[:n], 0o600))
		l, _ := openLog(t, dir, newConfig())
		require.NoError(t, l.Add([]Series{one("z", 9)}))
		whole := max(n-segmentHead, 0) / record
		require.Equal(t, whole+1, l.Cut(at, at+10).Exemplars(), "%d bytes", n)
		l, m := openLog(t, dir, newConfig())
		require.Equal(t, whole+1, l.Cut(at, at+10).Exemplars(), "%d bytes, opened again", n)
		require.Zero(t, testutil.ToFloat64(m.torn), "it was mended")
	}
}

// TestLogBounded: a log takes no more disk than it may, the oldest goes and is
// counted if no note was cut of it.
//
// RELIABILITY P7
func TestLogBounded(t *testing.T) {
	cfg := newConfig()
	cfg.DiskBytes = 16 << 10
	cfg.MaxFamilies = 2
	dir := t.TempDir()
	l, m := openLog(t, dir, cfg)
	at, n := now.UnixMilli(), int64(2000)
	for i := range n {
		require.NoError(t, l.Add([]Series{one("a", i)}))
		if i == 99 {
			require.Equal(t, 100, l.Cut(at, at+100).Exemplars())
		}
	}
	var size int64
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	for _, f := range files {
		st, err := os.Stat(f)
		require.NoError(t, err)
		size += st.Size()
	}
	require.LessOrEqual(t, size, int64(cfg.DiskBytes))
	kept := l.Cut(at, at+n).Series
	require.Equal(t, at+n-1, kept[0].Exemplars[len(kept[0].Exemplars)-1].Ts, "the newest are there")
	dropped := testutil.ToFloat64(m.dropped.WithLabelValues(droppedDisk))
	require.InDelta(t, float64(int(n)-len(kept[0].Exemplars)-100), dropped, 100, "but for those of the note")

	require.NoError(t, l.Mention([]Family{{Name: "a"}, {Name: "b"}, {Name: "c"}}, now))
	require.Len(t, l.Cut(at, at+1).Families, 2)
	require.Equal(t, 1.0, testutil.ToFloat64(m.dropped.WithLabelValues(droppedFamilies)))
}

// TestLogForgets what is older than it is to be kept.
func TestLogForgets(t *testing.T) {
	dir := t.TempDir()
	l, _ := openLog(t, dir, newConfig())
	at := now.UnixMilli()
	require.NoError(t, l.Mention([]Family{{Name: "old"}, {Name: "new"}}, now))
	require.NoError(t, l.Add([]Series{one("a", 1)}))
	l, _ = openLog(t, dir, newConfig())
	require.NoError(t, l.Add([]Series{one("a", 2)}))
	later := now.Add(48*time.Hour + time.Second)
	require.NoError(t, l.Mention([]Family{{Name: "new"}}, later))
	require.NoError(t, l.Forget(now.Add(48*time.Hour)))
	require.Equal(t, 2, l.Cut(at, at+10).Exemplars(), "just young enough")
	require.NoError(t, l.Forget(later))
	n := l.Cut(at, at+10)
	require.Equal(t, []Series{one("a", 2)}, n.Series, "the file that is written to stays")
	require.Equal(t, []Family{{Name: "new"}}, n.Families)
	l, _ = openLog(t, dir, newConfig())
	require.Equal(t, []Family{{Name: "new"}}, l.Cut(at, at+10).Families)
}

// TestTidy: what senders wrote in disorder can be read.
func TestTidy(t *testing.T) {
	l, _ := openLog(t, t.TempDir(), newConfig())
	at := now.UnixMilli()
	messy := Series{Labels: labels.New(labels.Label{Name: "z", Value: "1"}, labels.Label{Name: "empty"}, labels.Label{Name: "a", Value: "2"})}
	messy.Exemplars = []exemplar.Exemplar{{Ts: at + 2}, {Ts: at + 1}, {Ts: at + 2}}
	require.NoError(t, l.Add([]Series{messy}))
	got := l.Cut(at, at+10).Series
	require.Len(t, got, 1)
	require.Equal(t, labels.FromStrings("a", "2", "z", "1"), got[0].Labels)
	require.Len(t, got[0].Exemplars, 2)
}

// TestLists: a listing shows notes and nothing else, and removing is done once or twice.
func TestLists(t *testing.T) {
	bkt := bucket.NewMemory()
	id := ulid.MustNew(1, nil)
	n := &Note{MaxTime: 1, Families: []Family{{Name: "up"}}}
	require.NoError(t, Upload(t.Context(), bkt, id, n))
	require.NoError(t, Upload(t.Context(), bkt, id, n), "sent again")
	require.NoError(t, bkt.Upload(context.Background(), "firnline/notes/else", strings.NewReader("x")))
	var got []ulid.ULID
	require.NoError(t, List(t.Context(), bkt, func(e Entry) { got = append(got, e.Block) }))
	require.Equal(t, []ulid.ULID{id}, got)
	require.NoError(t, Remove(t.Context(), bkt, id))
	require.NoError(t, Remove(t.Context(), bkt, id))
	_, err := Read(t.Context(), bkt, id)
	require.ErrorIs(t, err, ErrNone)
}

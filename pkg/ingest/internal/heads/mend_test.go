package heads

import (
	"context"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

const hour = int64(3_600_000)

// worn is a tenant with all that a TSDB's folder can hold: blocks, a
// checkpoint, several segments of both logs, and head chunk files. Its
// series: "a" over all time, "b0" to "b9" each from another segment, and "late" out of order.
func worn(t *testing.T) *rig {
	r := newRig(t, wornConfig)
	long := one("a")
	for i := range int64(300) {
		long.Samples = append(long.Samples, storetest.Sample{T: start + i*60_000, V: float64(i)})
	}
	for i := range 10 {
		part := long
		part.Samples = long.Samples[i*30 : i*30+30]
		mine := one(fmt.Sprintf("b%d", i), float64(int64(i)*30*60_000), float64(i))
		r.put(write("t", 1, part, mine))
		if i >= 5 {
			for _, back := range []int64{0, 10_000, 20_000} {
				r.put(write("t", 100, one("late", float64(int64(i)*30*60_000-back), float64(i))))
			}
		}
		if i == 6 {
			h := head1(t, r)
			require.NoError(t, h.db.Compact(t.Context()))
			h.release()
		}
		r.restart()
	}
	return r
}

func wornConfig(c *Config, _ *Parts) {
	c.OutOfOrderWindow = model.Duration(2 * time.Hour)
	c.TooFarAhead = 0
}

// head1 is the head of tenant t, retained.
func head1(t *testing.T, r *rig) *head {
	t.Helper()
	h, err := r.acquire(t.Context(), "t")
	require.NoError(t, err)
	return h
}

// TestWorn sees that the folder has what the damages below need.
func TestWorn(t *testing.T) {
	r := worn(t)
	want := r.read(t.Context(), everything())
	require.Len(t, want, 12)
	r.restart()
	require.True(t, reflect.DeepEqual(want, r.read(t.Context(), everything())))
	for _, pattern := range []string{"wal/checkpoint.*/00000000", "wal/0000000*", "wbl/0000000*", "chunks_head/0*", "01*/index"} {
		require.NotEmpty(t, matches(t, r, pattern), pattern)
	}
	require.Greater(t, len(matches(t, r, "wal/0*")), 4)
	require.NoDirExists(t, filepath.Join(r.cfg.Dir, "t", damagedDir))
}

// matches are the files of tenant t that fit a pattern, in order, those without content left out.
func matches(t *testing.T, r *rig, pattern string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(r.cfg.Dir, "t", pattern))
	require.NoError(t, err)
	all = slices.DeleteFunc(all, func(f string) bool {
		st, err := os.Stat(f)
		require.NoError(t, err)
		return st.Size() == 0
	})
	require.GreaterOrEqual(t, len(all), 1, pattern)
	return all
}

// change rewrites a file.
func change(t *testing.T, path string, f func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, f(slices.Clone(data)), 0o644))
}

func flip(at float64) func([]byte) []byte {
	return func(b []byte) []byte { b[int(at*float64(len(b)-1))] ^= 0x55; return b }
}

// content is the part of a segment before the padding.
func content(b []byte) int {
	n := len(b)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return n
}

// TestDamage damages each kind of file in each way. The tenant has to open by itself and
// serve, keep what was damaged, lose no more than it has to, and go on over a restart.
//
// RELIABILITY I2, P9
func TestDamage(t *testing.T) {
	blocks := []string{"a", "b0", "b1", "b2", "b3"} // of the time that was cut into blocks
	all := append(slices.Clone(blocks), "b4", "b5", "b6", "b7", "b8", "b9", "late")
	origin := worn(t)
	before := origin.read(t.Context(), everything())
	origin.stop()
	template := origin.cfg.Dir
	for _, c := range []struct {
		name, pattern string
		pick          func(files []string) []string
		damage        func([]byte) []byte // nil: remove the file
		what          string              // the metric's label; "": nothing is damaged
		have, lost    []string            // series with samples, and some that can't be there any more
	}{
		{"torn at the end", "wal/0*", last, func(b []byte) []byte { return b[:content(b)-3] }, "wal", nil, nil},
		{"half a page", "wal/0*", last, func(b []byte) []byte { return b[:content(b)/2] }, "wal", nil, nil},
		{"flipped in the newest", "wal/0*", last, func(b []byte) []byte { b[content(b)-2] ^= 1; return b }, "wal", without(all, "b9", "late"), nil},
		{"flipped in the first", "wal/0*", first, func(b []byte) []byte { b[content(b)/2] ^= 1; return b }, "wal", blocks, []string{"b8", "b9"}},
		{"garbage", "wal/0*", third, func(b []byte) []byte { return []byte(strings.Repeat("garbage!", 5000)) }, "wal", blocks, []string{"b9"}},
		{"zero page", "wal/0*", third, func(b []byte) []byte { clear(b); return b }, "wal", blocks, []string{"b9"}},
		{"zero page at the end", "wal/0*", last, func(b []byte) []byte { return append(b, make([]byte, logPage)...) }, "wal", all, nil},
		{"missing segment", "wal/0*", third, nil, "wal", blocks, []string{"b9"}},
		{"flipped checkpoint", "wal/checkpoint.*/0*", first, flip(0.001), "checkpoint", []string{"b9", "b8"}, nil},
		{"empty checkpoint", "wal/checkpoint.*/0*", first, func([]byte) []byte { return nil }, "checkpoint", []string{"b9", "b8"}, nil},
		{"checkpoint without files", "wal/checkpoint.*/0*", first, nil, "checkpoint", []string{"b9", "b8"}, nil},
		{"missing checkpoint", "wal/checkpoint.*", first, nil, "checkpoint", []string{"b9", "b8"}, nil},
		{"late log flipped", "wbl/0*", first, func(b []byte) []byte { b[content(b)/2] ^= 1; return b }, "wbl", without(all, "late"), nil},
		{"late log torn", "wbl/0*", last, func(b []byte) []byte { return b[:content(b)-3] }, "wbl", all, nil},
		{"late segment missing", "wbl/0*", second, nil, "wbl", without(all, "late"), nil},
		{"chunk flipped", "chunks_head/0*", first, func(b []byte) []byte { b[content(b)/2] ^= 1; return b }, "chunks", all, nil},
		{"chunk file cut", "chunks_head/0*", first, func(b []byte) []byte { return b[:len(b)/2] }, "", all, nil},
		{"chunk file is no such", "chunks_head/0*", first, func(b []byte) []byte { copy(b, "nonsense"); return b }, "chunks", all, nil},
		{"index of a block flipped", "01*/index", first, func(b []byte) []byte { b[len(b)-3] ^= 1; return b }, "block", without(all, "b0", "b1", "b2", "b3", "a"), nil},
		{"index of a block missing", "01*/index", first, nil, "block", without(all, "b0", "b1", "b2", "b3", "a"), nil},
		{"meta.json of a block is no JSON", "01*/meta.json", first, func([]byte) []byte { return []byte("{") }, "block", without(all, "b0", "b1", "b2", "b3", "a"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, wornConfig, func(c *Config, _ *Parts) { require.NoError(t, os.CopyFS(c.Dir, os.DirFS(template))) })
			r.stop()
			require.NoError(t, os.Remove(filepath.Join(r.cfg.Dir, "t", endNoteFilename)), "as after a crash: else the log is not read")
			for _, f := range c.pick(matches(t, r, c.pattern)) {
				if c.damage == nil {
					require.NoError(t, os.RemoveAll(f))
				} else {
					change(t, f, c.damage)
				}
			}
			r.run()
			got := r.read(t.Context(), everything())
			for _, name := range c.have {
				require.True(t, got[seriesName(name)] != nil, name)
			}
			for _, name := range c.lost {
				require.True(t, got[seriesName(name)] == nil, name)
			}
			for name, samples := range got { // nothing comes up that was not there
				require.True(t, within(before[name], samples), name)
			}
			if c.what != "" {
				require.Positive(t, testutil.ToFloat64(r.metrics.damages.WithLabelValues(c.what)))
			}
			if c.what != "" && c.damage != nil && c.name != "empty checkpoint" {
				require.NotEmpty(t, kept(t, r, c.what))
			}
			require.NoDirExists(t, filepath.Join(r.cfg.Dir, "t", damagedDir, heldDir))

			// New series get no references of lost ones: those have samples on disk still.
			for i := range 20 {
				r.put(write("t", uint64(1000+i), one(fmt.Sprintf("new%d", i), float64(10*hour), float64(i))))
			}
			after := r.read(t.Context(), everything())
			damages := testutil.ToFloat64(r.metrics.damages.WithLabelValues("wal"))
			r.restart()
			require.True(t, reflect.DeepEqual(after, r.read(t.Context(), everything())))
			require.LessOrEqual(t, testutil.ToFloat64(r.metrics.damages.WithLabelValues("wal")), damages)
			require.Zero(t, testutil.ToFloat64(r.metrics.damages.WithLabelValues("wal")), "mended for good")
			for i := range 20 {
				require.Equal(t, []storetest.Sample{{T: start + 10*hour, V: float64(i)}}, after[seriesName(fmt.Sprintf("new%d", i))])
			}
		})
	}
}

// within tells whether all of some samples are among others.
func within(all, some []storetest.Sample) bool {
	return !slices.ContainsFunc(some, func(s storetest.Sample) bool {
		return !slices.ContainsFunc(all, func(a storetest.Sample) bool { return a.T == s.T && a.V == s.V })
	})
}

func seriesName(name string) string {
	return fmt.Sprintf(`{__name__=%q, replica="a", tenant_id="t"}`, name)
}

func without(all []string, names ...string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(n string) bool { return slices.Contains(names, n) })
}

func first(files []string) []string  { return files[:1] }
func second(files []string) []string { return files[1:2] }
func third(files []string) []string  { return files[2:3] }
func last(files []string) []string   { return files[len(files)-1:] }

// kept are the files that were put aside.
func kept(t *testing.T, r *rig, what string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(r.cfg.Dir, "t", damagedDir), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(path, "-"+what+"/") {
			out = append(out, path)
		}
		return err
	})
	require.NoError(t, err)
	return out
}

// TestDamagedIsBounded: what was put aside first goes when it gets too much.
func TestDamagedIsBounded(t *testing.T) {
	r := newRig(t, func(c *Config, _ *Parts) { c.DamagedBytes = 100_000 })
	for i := range 6 {
		r.put(write("t", 1, one("up", float64(i), 1)))
		r.advance(time.Second)
		r.stop()
		change(t, last(matches(t, r, "wal/0*"))[0], func(b []byte) []byte { return append(b, "garbage"...) })
		r.run()
	}
	require.LessOrEqual(t, treeBytes(filepath.Join(r.cfg.Dir, "t", damagedDir)), int64(100_000))
	require.NotEmpty(t, kept(t, r, "wal"))
	require.Len(t, r.read(t.Context(), everything())[seriesName("up")], 6)
}

// TestInterruptedOpening: what was held when a start died is what the next one begins with.
func TestInterruptedOpening(t *testing.T) {
	r := worn(t)
	want := r.read(t.Context(), everything())
	r.stop()
	m := r.newHead("t").newMender()
	require.NoError(t, m.hold())
	for _, f := range matches(t, r, "wal/0*")[1:] { // as a repair does that goes wrong
		require.NoError(t, os.Remove(f))
	}
	require.NoError(t, os.RemoveAll(m.in("../wbl")))
	r.run()
	require.True(t, reflect.DeepEqual(want, r.read(t.Context(), everything())))
}

// TestRestart: stopped and started, every kind of sample is what it was.
//
// RELIABILITY I3
func TestRestart(t *testing.T) {
	for _, st := range []bool{false, true} {
		t.Run(fmt.Sprintf("start timestamps %t", st), func(t *testing.T) {
			r := newRig(t, func(c *Config, _ *Parts) { c.OutOfOrderWindow = model.Duration(time.Hour); c.TooFarAhead = 0 })
			r.setLimits("t", Limits{StartTimestamps: st})
			r.put(write("t", 1, kinds(0)...))
			r.put(write("t", 1, kinds(2*hour)...))
			r.put(write("t", 1, kinds(2*hour-hour/2)...)) // late
			r.put(write("t", 50, one("stale", float64(3*hour), 1), one("stale", float64(3*hour+1), math.Float64frombits(value.StaleNaN))))
			h := head1(t, r)
			require.NoError(t, h.db.Delete(t.Context(), start, start+hour/4, labels.MustNewMatcher(labels.MatchEqual, "__name__", "deleted")))
			h.release()
			want := r.dump()
			require.Len(t, want, 8)
			for range 3 {
				r.restart()
				require.Equal(t, want, r.dump())
			}
			require.NoError(t, r.FlushAll(t.Context()))
			require.Equal(t, want, r.dump())
			for name, samples := range r.read(t.Context(), everything()) {
				with := slices.ContainsFunc(samples, func(s storetest.Sample) bool { return s.ST != 0 })
				require.Equal(t, st && !strings.Contains(name, "stale"), with, name)
			}
		})
	}
}

// dump is all that is read, comparable: NaNs by their bits.
func (r *rig) dump() map[string][]string {
	r.t.Helper()
	out := map[string][]string{}
	for name, samples := range r.read(context.Background(), everything()) {
		for _, s := range samples {
			out[name] = append(out[name], fmt.Sprintf("%d %d %x %v %v", s.ST, s.T, math.Float64bits(s.V), s.H, s.FH))
		}
	}
	return out
}

// kinds is a series of each kind of sample, from a time on.
func kinds(from int64) []storetest.Series {
	names := []string{"float", "integer", "custom", "gauge", "fraction", "deleted", "ends"}
	out := make([]storetest.Series, len(names))
	for i, n := range names {
		out[i].Labels = labels.FromStrings("__name__", n)
	}
	for i := range 40 {
		at := start + from + int64(i)*15_000
		add := func(k int, s storetest.Sample) {
			s.T, s.ST = at, at-1000
			out[k].Samples = append(out[k].Samples, s)
		}
		add(0, storetest.Sample{V: float64(i)})
		add(1, storetest.Sample{H: tsdbutil.GenerateTestHistogram(int64(i))})
		add(2, storetest.Sample{H: tsdbutil.GenerateTestCustomBucketsHistogram(int64(i))})
		add(3, storetest.Sample{H: tsdbutil.GenerateTestGaugeHistogram(int64(i))})
		add(4, storetest.Sample{FH: tsdbutil.GenerateTestFloatHistogram(int64(i))})
		add(5, storetest.Sample{V: float64(i)})
		add(6, storetest.Sample{V: float64(i)})
	}
	return out
}

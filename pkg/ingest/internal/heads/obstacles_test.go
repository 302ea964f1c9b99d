package heads

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// obstacle is what keeps the system from opening, reading or removing something of tenant t's.
// place puts it there; lift takes it away.
type obstacle struct {
	name  string
	place func(t *testing.T, r *rig) (lift func())
	says  string
	all   bool // it stands in every tenant's way
}

// unreadable puts a link to itself in place of a file: it can't be opened, not even by root.
func unreadable(pattern string, pick func([]string) []string) obstacle {
	return obstacle{"unreadable " + pattern, func(t *testing.T, r *rig) func() {
		return loop(t, pick(matches(t, r, pattern))[0])
	}, "too many levels of symbolic links", false}
}

func loop(t *testing.T, path string) (lift func()) {
	away := filepath.Join(t.TempDir(), "away")
	require.NoError(t, os.Rename(path, away))
	require.NoError(t, os.Symlink(filepath.Base(path), path))
	return func() {
		require.NoError(t, os.Remove(path))
		require.NoError(t, os.Rename(away, path))
	}
}

// inTheWay puts a file or folder where there was nothing.
func inTheWay(name string, folder bool, says string) obstacle {
	return obstacle{"in the way: " + name, func(t *testing.T, r *rig) func() {
		path := filepath.Join(r.cfg.Dir, "t", name)
		if folder {
			require.NoError(t, os.Mkdir(path, 0o755))
		} else {
			require.NoError(t, os.WriteFile(path, nil, 0o644))
		}
		return func() { require.NoError(t, os.Remove(path)) }
	}, says, false}
}

// failing lets a step fail, as often as it comes.
func failingStep(step string, err error) obstacle {
	return obstacle{"failing " + step, func(_ *testing.T, r *rig) func() {
		var lifted atomic.Bool
		r.p.Fault = func(s string) error {
			if s == step && !lifted.Load() {
				return err
			}
			return nil
		}
		return func() { lifted.Store(true) }
	}, err.Error(), true}
}

func obstacles() []obstacle {
	return []obstacle{
		unreadable("wal/0*", first),
		unreadable("wal/0*", last),
		unreadable("wal/checkpoint.*/0*", first),
		unreadable("wbl/0*", first),
		unreadable("wbl/0*", last),
		unreadable("chunks_head/0*", first),
		unreadable("chunks_head/0*", last),
		unreadable("01*/meta.json", first),
		unreadable("01*/index", first),
		unreadable("01*/chunks/0*", first),
		inTheWay("wal/00000099", true, "is a directory"),
		inTheWay("chunks_head/000099", true, "is a directory"),
		inTheWay("damaged", false, "not a directory"),
		inTheWay("snapshot.json", true, "is a directory"),
		{"another program has it open", func(t *testing.T, r *rig) func() {
			lock, _, err := fileutil.Flock(filepath.Join(r.cfg.Dir, "t", "lock"))
			require.NoError(t, err)
			return func() { require.NoError(t, lock.Release()) }
		}, "resource temporarily unavailable", false},
		failingStep("mend/hold", syscall.EMFILE),
		failingStep("open/tsdb", syscall.ENFILE),
		failingStep("mend/let go", syscall.EROFS),
		readOnly(),
	}
}

// TestObstacles: whatever keeps the system from opening a tenant's files, nothing of them is taken for
// damaged. They stay as they are, writes are answered with what is wrong, and other tenants go on. When it
// is over all is there, and the tenant takes samples.
//
// RELIABILITY I2
func TestObstacles(t *testing.T) {
	meet(t, obstacles())
}

// meet starts with each of these in the way.
func meet(t *testing.T, all []obstacle) {
	origin := worn(t)
	origin.put(write("other", 1, one("up", 0, 1)))
	want := origin.dump()
	origin.stop()
	for _, o := range all {
		t.Run(strings.ReplaceAll(o.name, "/", " "), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, wornConfig, func(c *Config, _ *Parts) { require.NoError(t, os.CopyFS(c.Dir, os.DirFS(origin.cfg.Dir))) })
			r.stop()
			require.NoError(t, os.Remove(filepath.Join(r.cfg.Dir, "t", endNoteFilename)), "as after a crash: else the log is not read")
			before := contents(t, filepath.Join(r.cfg.Dir, "t"))
			lift := o.place(t, r)
			r.run()
			for try := range 3 {
				r.advance(time.Duration(try) * retryLongest)
				_, err := r.Append(t.Context(), write("t", 1, one("a", float64(9*hour), 1)))
				require.ErrorContains(t, asRefuse(t, err, refuse.Unavailable), o.says)
				require.ErrorContains(t, err, "left as it is")
				if !o.all {
					require.EqualValues(t, 1, testutil.ToFloat64(r.metrics.unopened))
					r.put(write("other", 1, one("up", float64(1000*(try+1)), 1)))
				}
			}
			require.Zero(t, testutil.CollectAndCount(r.metrics.damages))
			lift() // nobody tries again before the clock goes on
			require.True(t, reflect.DeepEqual(before, contents(t, filepath.Join(r.cfg.Dir, "t"))))
			r.advance(retryLongest)
			r.tend(t.Context())
			require.Zero(t, testutil.ToFloat64(r.metrics.unopened))
			r.put(write("t", 1, one("a", float64(9*hour), 1)))
			require.Zero(t, testutil.CollectAndCount(r.metrics.damages))
			require.NoDirExists(t, filepath.Join(r.cfg.Dir, "t", damagedDir))
			got := r.dump()
			for name, samples := range want {
				require.Subset(t, got[name], samples, name)
			}
		})
	}
}

func thirdLast(files []string) []string { return files[len(files)-3 : len(files)-2] }

// contents are the files of logs, head chunks and blocks in a tenant's folder, by name, as the next opening
// begins with them: what is held is put back then, if it could not be before.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, log := range []string{walDir, wblDir, chunksDir, "01*"} {
		found, err := filepath.Glob(filepath.Join(dir, damagedDir, heldDir, log))
		require.NoError(t, err)
		if len(found) == 0 {
			found, err = filepath.Glob(filepath.Join(dir, log))
			require.NoError(t, err)
		}
		for _, folder := range found {
			err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				data, err := os.ReadFile(path)
				name, _ := filepath.Rel(filepath.Dir(folder), path)
				out[name] = string(data)
				return err
			})
			require.NoError(t, err)
		}
	}
	return out
}

// TestMendingFails: mending that fails at any step, or is killed there, leaves what was there, and
// the next one does what it would have done. Nothing of it shows but when it is done.
//
// RELIABILITY I2
func TestMendingFails(t *testing.T) {
	origin := worn(t)
	origin.stop()
	for _, c := range []struct {
		name, pattern string
		pick          func([]string) []string
		damage        func([]byte) []byte // nil: remove the file
	}{
		{"torn", "wal/0*", last, func(b []byte) []byte { return b[:content(b)-3] }},
		{"flipped", "wal/0*", thirdLast, func(b []byte) []byte { b[content(b)/2] ^= 1; return b }},
		{"missing checkpoint", "wal/checkpoint.*", first, nil},
		{"late log flipped", "wbl/0*", first, func(b []byte) []byte { b[content(b)/2] ^= 1; return b }},
		{"chunk flipped", "chunks_head/0*", first, func(b []byte) []byte { b[content(b)/2] ^= 1; return b }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, wornConfig, func(c *Config, _ *Parts) { require.NoError(t, os.CopyFS(c.Dir, os.DirFS(origin.cfg.Dir))) })
			r.stop()
			require.NoError(t, os.Remove(filepath.Join(r.cfg.Dir, "t", endNoteFilename)))
			for _, f := range c.pick(matches(t, r, c.pattern)) {
				if c.damage == nil {
					require.NoError(t, os.RemoveAll(f))
				} else {
					change(t, f, c.damage)
				}
			}
			damaged := r.cfg.Dir
			begin := func(dir string, fault func(string) error) {
				r.cfg.Dir, r.p.Fault = dir, fault
				r.run()
			}
			begin(killedCopy(t, damaged), nil)
			want := r.dump()
			counted := testutil.ToFloat64(r.metrics.damagedBytes)
			r.stop()
			for nth, over := 1, false; !over; nth++ {
				dir, killed, step := killedCopy(t, damaged), "", 0
				over = true
				begin(dir, func(name string) error {
					if step++; !strings.HasPrefix(name, "mend/") && name != "open/tsdb" || step != nth {
						return nil
					}
					over = false
					killed = killedCopy(t, dir)
					return syscall.EIO
				})
				if over {
					break
				}
				_, err := r.Append(t.Context(), write("t", 1, one("a", float64(9*hour), 1)))
				require.ErrorContains(t, asRefuse(t, err, refuse.Unavailable), "input/output error", "step %d", nth)
				final := testutil.ToFloat64(r.metrics.damagedBytes)
				r.stop()
				begin(dir, nil)
				require.True(t, reflect.DeepEqual(want, r.dump()), "failed at step %d", nth)
				require.Equal(t, counted, final+testutil.ToFloat64(r.metrics.damagedBytes), "step %d: counted once", nth)
				r.stop()
				begin(killed, nil)
				require.True(t, reflect.DeepEqual(want, r.dump()), "killed at step %d", nth)
				r.stop()
			}
		})
	}
}

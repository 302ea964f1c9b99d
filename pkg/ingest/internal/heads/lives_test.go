package heads

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

// TestLives: whatever is acknowledged is read, once, through lives that end in order or by a kill, also while the
// TSDB is being opened, with head chunks, snapshot or note damaged or gone, files that can't be opened for a while, a disk that is nearly full, blocks cut, and
// series that come late, go, and come back.
//
// It runs two seeds, or new ones for as long as FIRNLINE_SOAK says, from FIRNLINE_SEED on: one alone for 1ns.
//
// RELIABILITY I1, I2
func TestLives(t *testing.T) {
	seeds, until := []uint64{1, 2}, time.Time{}
	if s := os.Getenv("FIRNLINE_SOAK"); s != "" {
		last, err := time.ParseDuration(s)
		require.NoError(t, err, "FIRNLINE_SOAK")
		first, err := strconv.ParseUint(cmp.Or(os.Getenv("FIRNLINE_SEED"), fmt.Sprint(time.Now().Unix())), 10, 64)
		require.NoError(t, err, "FIRNLINE_SEED")
		seeds, until = []uint64{first}, time.Now().Add(last)
	}
	for i := 0; i < len(seeds); i++ {
		t.Run(fmt.Sprintf("seed=%d", seeds[i]), func(t *testing.T) { newSurvivor(t, seeds[i]).live() })
		if time.Now().Before(until) && !t.Failed() {
			seeds = append(seeds, seeds[i]+1)
		}
	}
}

// survivor is a tenant that is killed again and again, and what it has acknowledged.
type survivor struct {
	*rig
	t     *testing.T
	rand  *rand.Rand
	free  atomic.Int64 // bytes on the disk
	now   int64        // ms since start, of the newest samples
	acked map[string]map[int64]uint64
	told  []string // what was done, for a failure
}

func newSurvivor(t *testing.T, seed uint64) *survivor {
	s := &survivor{t: t, rand: rand.New(rand.NewPCG(seed, 3)), acked: map[string]map[int64]uint64{}}
	s.free.Store(math.MaxInt64)
	s.rig = newRig(t, func(c *Config, p *Parts) {
		c.OutOfOrderWindow, c.OutOfOrderCapMax, c.TooFarAhead, c.Sync = model.Duration(3*time.Hour), 5, 0, SyncNone
		p.FreeBytes = func(string) (int64, error) { return s.free.Load(), nil }
	})
	return s
}

func (s *survivor) live() {
	for range 8 {
		for range s.rand.IntN(40) { // may be none: it ends again at once
			s.step()
		}
		s.end()
		s.check()
	}
}

// step writes, and cuts blocks now and then.
func (s *survivor) step() {
	s.now += 6 * 60_000
	for i := range 12 {
		name := fmt.Sprintf("s%d", i)
		switch {
		case i == 10: // another one every hour
			name = fmt.Sprintf("new%d", s.now/hour)
		case i == 11 && s.now/(5*hour)%2 == 0: // goes and comes back
			continue
		}
		if s.rand.IntN(4) > 0 {
			s.sample(uint64(i), name, s.now+int64(i))
		}
		if s.rand.IntN(8) == 0 {
			s.sample(uint64(i), name, s.now-s.rand.Int64N(2*hour))
		}
	}
	h := head1(s.t, s.rig)
	defer h.release()
	switch s.rand.IntN(30) {
	case 0:
		require.NoError(s.t, h.db.Compact(s.t.Context()))
		s.tell("cut")
	case 1:
		require.NoError(s.t, h.db.CompactOOOHead(s.t.Context()))
		s.tell("late cut")
	case 2:
		require.NoError(s.t, h.flush(s.t.Context(), "request"))
		s.tell("flush")
	case 3, 4:
		h.db.ForceHeadMMap()
	case 5:
		_, err := tsdb.NewOOOCompactionHead(s.t.Context(), h.db.Head()) // a cut of late samples that does not come to an end
		require.NoError(s.t, err)
		s.tell("late cut begun")
	}
}

func (s *survivor) tell(format string, args ...any) {
	s.told = append(s.told, fmt.Sprintf("%d: ", s.now)+fmt.Sprintf(format, args...))
}

func (s *survivor) sample(id uint64, name string, at int64) {
	v := float64(s.rand.IntN(1 << 20))
	if s.rand.IntN(20) == 0 {
		v = math.Float64frombits(value.StaleNaN)
	}
	if len(name) > 3 {
		id = 100 + uint64(s.now/hour)
	}
	w := write("t", id+1, one(name, float64(at), v))
	w.Session = batch.Session{byte(len(s.told))} // known series are looked up anew now and then
	res, err := s.Append(s.t.Context(), w)
	require.NoError(s.t, err)
	require.Empty(s.t, res.Unknown)
	if len(res.Refused) > 0 {
		return // late for what is cut, or another value at this time
	}
	if s.acked[name] == nil {
		s.acked[name] = map[int64]uint64{}
	}
	if _, again := s.acked[name][start+at]; !again {
		s.acked[name][start+at] = math.Float64bits(v)
	}
}

// end ends the process in one way or another, and starts the next, perhaps by several attempts.
func (s *survivor) end() {
	if s.rand.IntN(3) == 0 {
		if s.rand.IntN(3) == 0 {
			require.NoError(s.t, s.FlushAll(s.t.Context()))
			s.tell("flush")
		}
		s.stop()
		s.tell("stopped")
		s.damage(endNoteFilename, "chunk_snapshot.*/0*", "chunks_head/0*")
	} else {
		s.kill()
		s.damage("chunks_head/0*")
	}
	for s.rand.IntN(3) == 0 {
		s.opening()
	}
	if s.rand.IntN(4) == 0 {
		s.obstructed()
	}
	if s.rand.IntN(6) == 0 {
		s.free.Store(65 << 20) // for the opening, not for a snapshot
		s.tell("no room for a snapshot")
	}
	s.run()
	s.free.Store(math.MaxInt64)
	for s.rand.IntN(4) == 0 { // again at once
		s.kill()
		s.run()
	}
}

// kill goes on with the folder as it is now. No block is being cut: what is copied is of one moment.
func (s *survivor) kill() {
	for range cap(s.cuts) {
		s.cuts <- struct{}{}
	}
	killed := killedCopy(s.t, s.cfg.Dir)
	for range cap(s.cuts) {
		<-s.cuts
	}
	s.stop()
	s.cfg.Dir = killed
	s.tell("killed")
}

// damage harms one of the files that fit, or none.
func (s *survivor) damage(patterns ...string) {
	pattern := patterns[s.rand.IntN(len(patterns))]
	files, err := filepath.Glob(filepath.Join(s.cfg.Dir, "t", pattern))
	require.NoError(s.t, err)
	files = slices.DeleteFunc(files, func(path string) bool { return treeBytes(path) == 0 })
	if len(files) == 0 || s.rand.IntN(2) == 0 {
		return
	}
	path := files[s.rand.IntN(len(files))]
	switch s.rand.IntN(4) {
	case 0:
		require.NoError(s.t, os.Remove(path))
		s.tell("%s gone", path)
	case 1:
		change(s.t, path, func(b []byte) []byte { return b[:s.rand.IntN(len(b))] })
		s.tell("%s cut", path)
	case 2:
		change(s.t, path, flip(s.rand.Float64()))
		s.tell("%s flipped", path)
	default:
		for _, path := range files {
			require.NoError(s.t, os.Remove(path))
		}
		s.tell("all of %s gone", pattern)
	}
}

// opening is one that is killed when the log has been prepared, and half of what was written is lost.
func (s *survivor) opening() {
	p := s.p
	p.Metrics = prometheus.NewRegistry()
	hs := New(s.cfg, p)
	h := hs.newHead("t")
	m := h.newMender()
	require.NoError(s.t, m.prepare())
	if s.rand.IntN(2) == 0 { // else as where there are no hard links
		require.NoError(s.t, m.hold())
	}
	before, err := filepath.Glob(filepath.Join(h.dir, "c*", "*"))
	require.NoError(s.t, err)
	from, err := h.started(Limits{}, tsdb.NewDBStats())
	s.tell("killed while opening from %s, %v", from, err)
	after, err := filepath.Glob(filepath.Join(h.dir, "c*", "*"))
	require.NoError(s.t, err)
	for _, path := range after {
		if !slices.Contains(before, path) && s.rand.IntN(2) == 0 && treeBytes(path) > 0 {
			change(s.t, path, func(b []byte) []byte { return b[:s.rand.IntN(len(b))] })
			s.tell("%s cut", path)
		}
	}
}

// obstructed is a start with a file that can't be opened.
func (s *survivor) obstructed() {
	patterns := []string{"wal/0*", "wal/checkpoint.*/0*", "wbl/0*", "chunks_head/0*", "01*/index", "01*/meta.json"}
	pattern := patterns[s.rand.IntN(len(patterns))]
	files, err := filepath.Glob(filepath.Join(s.cfg.Dir, "t", pattern))
	require.NoError(s.t, err)
	if len(files) == 0 {
		return
	}
	path := files[s.rand.IntN(len(files))]
	away := filepath.Join(s.t.TempDir(), "away")
	require.NoError(s.t, os.Rename(path, away))
	require.NoError(s.t, os.Symlink(filepath.Base(path), path)) // to itself
	s.run()
	h, err := s.acquire(s.t.Context(), "t")
	s.tell("%s can't be opened: %v", path, err)
	if err == nil {
		h.release()
	}
	s.stop()
	st, gone := os.Lstat(path)
	if gone == nil && st.Mode()&os.ModeSymlink != 0 {
		require.NoError(s.t, os.Rename(away, path))
		require.Error(s.t, err, s.told)
		return
	}
	require.NoError(s.t, err, s.told) // what was held took its place, or it was put aside with a damaged one
}

func (s *survivor) check() {
	s.t.Helper()
	got := s.read(s.t.Context(), everything())
	for name, want := range s.acked {
		have := map[int64]uint64{}
		for _, smp := range got[seriesName(name)] {
			have[smp.T] = math.Float64bits(smp.V)
		}
		delete(got, seriesName(name))
		for at, v := range want {
			if have[at] != v {
				_, there := have[at]
				s.t.Fatalf("%s at %d (%t) is lost or changed; %d of %d are there\n%v", name, at-start, there, len(have), len(want), s.told)
			}
		}
		if len(have) != len(want) {
			s.t.Fatalf("%s has %d samples, %d were taken\n%v", name, len(have), len(want), s.told)
		}
	}
	require.Empty(s.t, got, s.told)
}

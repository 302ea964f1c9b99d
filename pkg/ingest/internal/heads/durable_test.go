package heads

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
	"github.com/firnline/firnline/pkg/tenant"
)

// envVictim makes the test binary a process that appends until it is killed:
// the folder, and how many writes it may make before it dies by itself at a step.
const envVictim = "FIRNLINE_HEADS_VICTIM"

// victim appends to two tenants, many series a write, and prints each write
// that was acknowledged. It dies by SIGKILL at its nth step that touches the
// disk, so that death comes between any two of them.
func victim(dir string, steps int64) {
	cfg := Config{}
	fs := flag.NewFlagSet("victim", flag.PanicOnError)
	cfg.RegisterFlags(fs)
	cfg.Dir, cfg.MinFree, cfg.SyncInterval, cfg.OutOfOrderWindow, cfg.TooFarAhead = dir, 0, 0, model.Duration(time.Hour), 0
	var left atomic.Int64
	left.Store(steps)
	hs := New(cfg, Parts{
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		Now: func() time.Time { return time.UnixMilli(start) }, // lest all is past retention
		Fault: func(string) error {
			if left.Add(-1) == 0 {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
			return nil
		},
	})
	go func() { _ = hs.Run(context.Background()) }()
	for hs.Ready() != nil {
		time.Sleep(time.Millisecond)
	}
	from, err := strconv.Atoi(os.Getenv(envVictim + "_FROM"))
	if err != nil {
		panic(err)
	}
	for i := from; ; i++ {
		for _, id := range []tenant.ID{"a", "b"} {
			if res, err := hs.Append(context.Background(), victimWrite(id, i)); err == nil && len(res.Refused)+len(res.Unknown) == 0 {
				fmt.Fprintf(os.Stdout, "%s %d\n", id, i)
			}
		}
	}
}

// victimSeries makes a write's records longer than a page of the log, as its values can't be compressed.
const victimSeries = 3500

// victimWrite is write i of a tenant: sample i of every series, and one that comes late.
func victimWrite(id tenant.ID, i int) *batch.Write {
	var series []storetest.Series
	for n := range victimSeries {
		noise := math.Float64frombits(uint64(i*victimSeries+n+1) * 0x9E3779B97F4A7C15 &^ (1 << 62))
		series = append(series, one(fmt.Sprintf("m%d", n), float64(i*1000), noise))
	}
	return write(id, 1, append(series, one("late", float64(1000*i+900), 0), one("late", float64(1000*i), float64(i)))...)
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(envVictim); dir != "" {
		steps, err := strconv.ParseInt(os.Getenv(envVictim+"_STEPS"), 10, 64)
		if err != nil {
			panic(err)
		}
		victim(dir, steps)
	}
	verifyNoLeaks(m)
}

// TestKilled kills a process that appends, again and again on the same folder, at
// its steps and at any moment. All that it has acknowledged is there afterwards.
//
// RELIABILITY I1
func TestKilled(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	acked := map[tenant.ID]map[int]bool{"a": {}, "b": {}}
	next := 1
	for round := range 6 {
		next = runVictim(t, dir, next, rnd, round%2 == 0, acked)
	}
	r := newRig(t, func(c *Config, _ *Parts) {
		c.Dir, c.OutOfOrderWindow, c.TooFarAhead = dir, model.Duration(time.Hour), 0
	})
	total := 0
	for id, writes := range acked {
		got := r.read(tenant.NewContext(t.Context(), id), everything())
		total += len(writes)
		for n := range victimSeries {
			have := map[int64]bool{}
			for _, s := range got[fmt.Sprintf(`{__name__="m%d", replica="a", tenant_id=%q}`, n, id)] {
				have[s.T] = true
			}
			for i := range writes {
				if !have[start+int64(i)*1000] {
					t.Fatalf("tenant %s series %d write %d is lost", id, n, i)
				}
			}
		}
		late := map[int64]bool{}
		for _, s := range got[fmt.Sprintf(`{__name__="late", replica="a", tenant_id=%q}`, id)] {
			late[s.T] = true
		}
		for i := range writes {
			require.True(t, late[start+int64(i)*1000], "tenant %s late write %d", id, i)
		}
	}
	require.GreaterOrEqual(t, total, 3, "each that was not killed at a step has acknowledged something")
	t.Logf("%d writes were acknowledged", total)
}

// runVictim runs a victim until it is dead and notes what it acknowledged.
func runVictim(t *testing.T, dir string, from int, rnd *rand.Rand, atStep bool, acked map[tenant.ID]map[int]bool) (next int) {
	steps := int64(1 << 40)
	if atStep {
		steps = 1 + rnd.Int64N(60)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), envVictim+"="+dir, fmt.Sprintf("%s_STEPS=%d", envVictim, steps), fmt.Sprintf("%s_FROM=%d", envVictim, from))
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	kill := time.AfterFunc(5*time.Minute, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	soon := sync.OnceFunc(func() { // however long the start has taken, something is acknowledged
		if !atStep {
			kill.Reset(time.Duration(rnd.IntN(400)) * time.Millisecond)
		}
	})
	lines := bufio.NewScanner(out)
	next = from
	for lines.Scan() {
		var id string
		var i int
		if _, err := fmt.Sscanf(lines.Text(), "%s %d", &id, &i); err == nil {
			acked[tenant.ID(id)][i] = true
			next = max(next, i+1)
			soon()
		}
	}
	_, _ = io.Copy(io.Discard, out)
	var dead *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &dead)
	return next + 1
}

// TestSyncFails: after a sync that failed the tenant takes nothing more until the next
// start, syncs no more, and goes on reading; others go on.
//
// RELIABILITY I4
func TestSyncFails(t *testing.T) {
	for _, step := range []string{"sync/wal", "sync/wbl", "sync/folder"} {
		t.Run(step, func(t *testing.T) {
			var bad atomic.Bool
			var tries atomic.Int64
			r := newRig(t, func(c *Config, p *Parts) {
				c.OutOfOrderWindow = model.Duration(time.Hour)
				p.Fault = func(s string) error {
					if s == step && bad.Load() {
						tries.Add(1)
						bad.Store(step == "sync/folder")
						return syscall.EIO
					}
					return nil
				}
			})
			if step != "sync/folder" { // which is synced with the first write
				r.put(write("t", 1, one("up", 0, 1)))
			}
			bad.Store(true)
			_, err := r.Append(t.Context(), write("t", 1, one("up", 1000, 2)))
			require.ErrorIs(t, asRefuse(t, err, refuse.Unavailable), err)
			n := tries.Load()
			bad.Store(false)
			for range 3 {
				_, err = r.Append(t.Context(), write("t", 1, one("up", 2000, 3)))
				require.ErrorContains(t, asRefuse(t, err, refuse.Unavailable), "input/output error")
				r.tend(t.Context())
			}
			require.Equal(t, n, tries.Load(), "no sync is tried again")
			require.NotEmpty(t, r.read(t.Context(), everything()))
			r.put(write("other", 1, one("up", 0, 1)))
			r.restart()
			r.put(write("t", 1, one("up", 3000, 4)))
			require.Equal(t, storetest.Sample{T: start + 3000, V: 4}, lastSample(r.read(t.Context(), everything())[seriesName("up")]))
		})
	}
}

// TestNoDescriptorsToSync: a log that could not be opened to be synced is opened anew when there are
// descriptors, and what was not acknowledged can be sent again.
//
// RELIABILITY I4
func TestNoDescriptorsToSync(t *testing.T) {
	var bad atomic.Bool
	var synced atomic.Int64
	r := newRig(t, func(_ *Config, p *Parts) {
		p.Fault = func(step string) error {
			if step == "sync/wal" && bad.Load() {
				return syscall.EMFILE
			}
			if step == "sync/wal" {
				synced.Add(1)
			}
			return nil
		}
	})
	r.put(write("t", 1, one("up", 0, 1)))
	bad.Store(true)
	_, err := r.Append(t.Context(), write("t", 1, one("up", 1000, 2)))
	require.ErrorContains(t, asRefuse(t, err, refuse.Unavailable), "too many open files")
	require.Len(t, r.read(t.Context(), everything())[seriesName("up")], 2)
	bad.Store(false)
	synced.Store(0)
	r.tend(t.Context())
	r.put(write("t", 1, one("up", 1000, 2)))
	require.GreaterOrEqual(t, synced.Load(), int64(2), "with the segment that it was written to before")
	require.Len(t, r.read(t.Context(), everything())[seriesName("up")], 2)
}

func lastSample(s []storetest.Sample) storetest.Sample { return s[len(s)-1] }

func asRefuse(t *testing.T, err error, reason refuse.Reason) error {
	t.Helper()
	e, ok := errors.AsType[*refuse.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, reason, e.Reason, err)
	return err
}

// TestDiskFull: while there is no space samples are refused and read; when there is some
// they are taken again.
//
// RELIABILITY I4
func TestDiskFull(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 30)
	r := newRig(t, func(c *Config, p *Parts) {
		c.MinFree = 1 << 20
		p.FreeBytes = func(string) (int64, error) { return free.Load(), nil }
	})
	r.put(write("t", 1, one("up", 0, 1)))
	free.Store(1000)
	r.advance(time.Second)
	_, err := r.Append(t.Context(), write("t", 1, one("up", 1000, 2)))
	require.ErrorContains(t, asRefuse(t, err, refuse.Unavailable), flagMinFree)
	require.Len(t, r.read(t.Context(), everything()), 1)
	free.Store(1 << 30)
	r.advance(time.Second)
	r.put(write("t", 1, one("up", 1000, 2)))
}

// TestDiskFullInTheMiddle lets a write to the log fail half-way, as it does when the disk
// is full before we notice. Nothing is acknowledged behind the torn record, all that
// was before is there, and the tenant goes on when there is space.
//
// RELIABILITY I4
func TestDiskFullInTheMiddle(t *testing.T) {
	dir, resize := smallDisk(t, 6<<20)
	r := newRig(t, func(c *Config, p *Parts) {
		c.Dir, c.OutOfOrderWindow, c.TooFarAhead = dir, model.Duration(time.Hour), 0
	})
	acked := 0
	refused := func(i int) bool {
		res, err := r.Append(t.Context(), victimWrite("t", i))
		if err == nil {
			require.Empty(t, res.Refused)
			return false
		}
		asRefuse(t, err, refuse.Unavailable)
		return true
	}
	for ; !refused(acked + 1); acked++ {
		require.Less(t, acked, 5000)
	}
	require.Positive(t, acked)
	for i := range 5 {
		require.True(t, refused(acked+2+i), "nothing is taken behind a torn record")
	}
	r.advance(time.Minute)
	r.tend(t.Context())
	require.Len(t, r.read(t.Context(), named("m0"))[seriesName("m0")], acked, "while there is no space to open it anew")
	resize(512 << 20)
	r.advance(time.Minute)
	next := acked + 1
	require.Eventually(t, func() bool {
		r.tend(t.Context())
		return !refused(next)
	}, 2*time.Minute, 50*time.Millisecond)
	check := func() {
		have := map[int64]bool{}
		for _, s := range r.read(t.Context(), named("m7"))[seriesName("m7")] {
			have[s.T] = true
		}
		for i := 1; i <= next; i++ {
			require.True(t, have[start+int64(i)*1000], "write %d", i)
		}
	}
	check()
	r.restart()
	check()
}

// TestDiskFullAtStart: a tenant whose log can't be read for want of space waits for it.
//
// RELIABILITY I4
func TestDiskFullAtStart(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 30)
	r := newRig(t, func(_ *Config, p *Parts) {
		p.FreeBytes = func(string) (int64, error) { return free.Load(), nil }
	})
	r.put(write("t", 1, one("up", 0, 1)))
	free.Store(10)
	r.restart()
	_, err := r.Append(t.Context(), write("t", 1, one("up", 1000, 2)))
	require.ErrorContains(t, asRefuse(t, err, refuse.Unavailable), "10 bytes are free")
	free.Store(1 << 30)
	r.advance(retryOpening)
	r.put(write("t", 1, one("up", 1000, 2)))
	require.Len(t, r.read(t.Context(), named("up"))[seriesName("up")], 2)
}

// smallDisk is a folder on a file system of its own.
func smallDisk(t *testing.T, size int) (dir string, resize func(int)) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.Mkdir(dir, 0o755))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("a file system can't be mounted here: %s", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir, func(size int) {
		require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", size)))
	}
}

// TestSyncedSegments: a sync takes each segment from the last synced to the newest, of both logs.
func TestSyncedSegments(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, walDir), 0o755))
	touch := func(log string, i int) {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, log), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, log, fmt.Sprintf("%08d", i)), nil, 0o644))
	}
	for i := range 4 {
		touch(walDir, i)
	}
	var steps []string
	r := newRig(t)
	s, err := newSyncer(dir, 0, func(step string) error { steps = append(steps, step); return nil }, r.metrics)
	require.NoError(t, err)
	took := func() string { out := strings.Join(steps, " "); steps = nil; return out }
	require.NoError(t, s.sync(1))
	require.Equal(t, "sync/wal sync/wal sync/wal sync/wal sync/folder", took(), "what was not promised may be sent again, and is not written then")
	require.NoError(t, s.sync(1))
	require.Equal(t, "sync/wal", took())
	touch(walDir, 4)
	touch(walDir, 5)
	touch(wblDir, 0)
	touch(wblDir, 1)
	require.NoError(t, os.Remove(filepath.Join(dir, walDir, "00000000"))) // a checkpoint stands for it
	require.NoError(t, s.sync(1))
	require.Equal(t, "sync/wal sync/wal sync/wal sync/folder sync/wbl sync/wbl sync/folder", took())
	require.NoError(t, s.sync(1))
	require.Equal(t, "sync/wal sync/wbl", took())
	for i := range 6 { // 6 has come and gone since
		require.NoError(t, os.RemoveAll(filepath.Join(dir, walDir, fmt.Sprintf("%08d", i))))
	}
	touch(walDir, 7)
	require.NoError(t, s.sync(1))
	require.Equal(t, "sync/wal sync/wal sync/folder sync/wbl", took(), "5 is still open")
	for _, l := range s.logs {
		l.close()
	}
}

// TestOneFolderOneProcess: a folder in use, and one of a later version, are refused.
func TestOneFolderOneProcess(t *testing.T) {
	r := newRig(t)
	again := New(r.cfg, Parts{Log: r.log, Metrics: prometheus.NewRegistry()})
	require.ErrorContains(t, again.Run(t.Context()), "in use")
	r.stop()
	require.NoError(t, os.WriteFile(filepath.Join(r.cfg.Dir, versionFilename), []byte(`{"version":2}`), 0o644))
	again = New(r.cfg, Parts{Log: r.log, Metrics: prometheus.NewRegistry()})
	require.ErrorIs(t, again.Run(t.Context()), block.ErrUnknownVersion)
}

// TestTooFarAhead: a sample of the future is refused, and those of now go on.
//
// RELIABILITY I8
func TestTooFarAhead(t *testing.T) {
	r := newRig(t)
	res, err := r.Append(t.Context(), write("t", 1, one("up", float64(hour), 1), one("up2", float64(365*24*hour), 1), one("up3", 5000, 1)))
	require.NoError(t, err)
	require.Len(t, res.Refused, 2)
	require.Equal(t, refuse.SampleTooFarInTime, res.Refused[0].Err.Reason)
	require.Contains(t, res.Refused[0].Err.Detail, `{__name__="up"}`)
	require.Contains(t, res.Refused[0].Err.Detail, flagTooFar)
	r.put(write("t", 1, one("up", 1000, 2)))
	require.Len(t, r.read(t.Context(), everything()), 2)
}

// TestSeriesLimits: known series go on, new ones are refused by name, and limits change while running.
//
// RELIABILITY I7
func TestSeriesLimits(t *testing.T) {
	r := newRig(t)
	r.setLimits("t", Limits{MaxSeries: 5, MaxSeriesPerMetric: 3})
	pod := func(i int, at float64) storetest.Series {
		s := one("up", at, 1)
		s.Labels = labels.FromStrings("__name__", "up", "pod", strconv.Itoa(i))
		return s
	}
	var many []storetest.Series
	for i := range 10 {
		many = append(many, pod(i, 0))
	}
	res, err := r.Append(t.Context(), write("t", 1, many...))
	require.NoError(t, err)
	require.Len(t, res.Refused, 7)
	require.Equal(t, refuse.MetricSeriesLimit, res.Refused[0].Err.Reason)
	require.Equal(t, `tenant t: series {__name__="up", pod="3"} is one too many of metric up, which has 3, the most it may have (max_series_per_metric of the tenant); series that are there go on; the label with the most values is pod, with 3`, res.Refused[0].Err.Detail)

	r.put(write("t", 100, one("b", 0, 1), one("c", 0, 1)))
	res, err = r.Append(t.Context(), write("t", 200, one("d", 0, 1), pod(0, 1000)))
	require.NoError(t, err)
	require.Len(t, res.Refused, 1)
	require.Equal(t, refuse.SeriesLimit, res.Refused[0].Err.Reason)
	require.Contains(t, res.Refused[0].Err.Detail, "tenant t: series {__name__=\"d\"} is one too many: the tenant has 5, the most it may have (head_series_limit of the tenant)")
	require.Equal(t, 1.0, testutil.ToFloat64(r.limitUsage()))

	r.restart() // replayed without looking at limits
	res, err = r.Append(t.Context(), write("t", 1, pod(1, 2000), one("d", 0, 1)))
	require.NoError(t, err)
	require.Len(t, res.Refused, 1)
	r.setLimits("t", Limits{MaxSeries: 6})
	r.put(write("t", 200, one("d", 0, 1)))
	require.Len(t, r.read(t.Context(), everything()), 6)
}

// TestRefusals: what the head does not take is told with the right reason, the rest is taken.
func TestRefusals(t *testing.T) {
	r := newRig(t)
	r.put(write("t", 1, one("up", 0, 1, 60_000, 2)))
	refusals := func(w *batch.Write) (out []string) {
		res, err := r.Append(t.Context(), w)
		require.NoError(t, err)
		for _, ref := range res.Refused {
			out = append(out, fmt.Sprintf("%d %d %s", ref.Series, ref.Samples, ref.Err.Reason))
		}
		return out
	}
	require.Equal(t, []string{"0 1 sample-out-of-order"}, refusals(write("t", 1, one("up", 1000, 1, 61_000, 3))))
	require.Equal(t, []string{"0 1 sample-duplicate"}, refusals(write("t", 1, one("up", 61_000, 4))))
	require.Empty(t, refusals(write("t", 1, one("up", 61_000, 3, 61_000, 3))))
	require.Equal(t, []string{"0 2 sample-out-of-order"}, refusals(write("t", 1, one("up", 63_000, 1, 62_500, 2, 62_000, 3))))
	require.Equal(t, []string{"0 1 sample-duplicate"}, refusals(write("t", 1, one("up", 64_000, 1, 64_000, 2))))
	r.setLimits("t", Limits{OutOfOrderWindow: pointer(model.Duration(time.Minute))})
	require.Equal(t, []string{"0 1 sample-too-old"}, refusals(write("t", 1, one("up", 10_000, 1, 3_000, 1))))
	require.Empty(t, refusals(write("t", 1, one("up", 65_000, 1, 64_500, 1))))
	r.setLimits("t", Limits{})
	require.Equal(t, []string{"0 1 sample-out-of-order"}, refusals(write("t", 1, one("up", 10_001, 1))))

	bad := kinds(0)[1]
	bad.Samples = bad.Samples[:2]
	bad.Samples[0].H.Count += 7
	require.Equal(t, []string{"0 1 bad-histogram"}, refusals(write("t", 50, bad)))
	empty := write("t", 60, storetest.Series{Samples: []storetest.Sample{{T: start, V: 1}, {T: start + 1, V: 1}}})
	require.Equal(t, []string{"0 2 bad-labels"}, refusals(empty))
	var many []storetest.Series
	for i := range 3 {
		many = append(many, one("up", float64(i), 1))
	}
	res, err := r.Append(t.Context(), write("t", 1, one("up", 1, 1), one("up", 2, 1)))
	require.NoError(t, err)
	require.Len(t, res.Refused, 2)
	require.Contains(t, res.Refused[0].Err.Detail, `{__name__="up"}`)
	require.NotContains(t, res.Refused[1].Err.Detail, `{__name__="up"}`, "only the first is told in full")
	require.NotEmpty(t, many)
}

func pointer[T any](v T) *T { return &v }

// TestOvertaken: samples that the TSDB leaves out at the commit, since the same
// write or another one brought newer ones, are not acknowledged. Tried again, they are refused.
func TestOvertaken(t *testing.T) {
	r := newRig(t)
	b := write("t", 1, one("up", 2000, 2), one("up", 1000, 1))
	b.Batch.Series[1].ID = b.Batch.Series[0].ID
	_, err := r.Append(t.Context(), b)
	asRefuse(t, err, refuse.Unavailable)
	res, err := r.Append(t.Context(), b)
	require.NoError(t, err)
	require.Len(t, res.Refused, 1)
	require.EqualValues(t, 1, res.Refused[0].Series)
	require.Equal(t, refuse.SampleOutOfOrder, res.Refused[0].Err.Reason)
}

// TestOvertakenAfterDelay: a write whose refusal the TSDB has counted and we have not yet
// neither fails another write nor hides what is left out later.
func TestOvertakenAfterDelay(t *testing.T) {
	r := newRig(t)
	_, err := r.Append(t.Context(), write("t", 1, one("up", 1000, 1)))
	require.NoError(t, err)
	h, err := r.acquire(t.Context(), "t")
	require.NoError(t, err)
	defer h.release()

	h.offering.RLock() // a write that stands still in its offers
	h.floats.counters[0].Inc()
	other := make(chan error, 1)
	go func() {
		_, err := r.Append(context.Background(), write("t", 2, one("down", 1000, 1)))
		other <- err
	}()
	select {
	case err := <-other:
		t.Fatalf("answered before it can be known: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	h.floats.rejected.Add(1)
	h.offering.RUnlock()
	require.NoError(t, <-other)

	b := write("t", 3, one("late", 2000, 2), one("late", 1000, 1))
	b.Batch.Series[1].ID = b.Batch.Series[0].ID
	_, err = r.Append(t.Context(), b)
	asRefuse(t, err, refuse.Unavailable)
}

// TestConcurrentWrites: many routers at once, each with its own session, while tenants are tended and read; all that is
// acknowledged is there.
func TestConcurrentWrites(t *testing.T) {
	r := newRig(t, func(c *Config, _ *Parts) { c.MaxSessions = 3 })
	for id := range 2 { // who reads waits for an opening, but not for long
		r.put(write(tenant.ID(fmt.Sprintf("t%d", id)), 1, one(fmt.Sprintf("r%d", id), 0, 0), one(fmt.Sprintf("s%d", id), 0, 0)))
	}
	var wg sync.WaitGroup
	for router := range 6 {
		wg.Go(func() {
			for i := range 50 {
				w := write(tenant.ID(fmt.Sprintf("t%d", router%2)), 1, one(fmt.Sprintf("r%d", router), float64(i), float64(i)), one(fmt.Sprintf("s%d", router), float64(i), float64(i)))
				w.Session = batch.Session{byte(router)}
				res, err := r.Append(t.Context(), w)
				if err != nil || len(res.Refused)+len(res.Unknown) > 0 {
					t.Errorf("%v %v", err, res)
				}
			}
		})
	}
	written := make(chan struct{})
	go func() { wg.Wait(); close(written) }()
	for writing := true; writing; {
		select {
		case <-written:
			writing = false
		default:
			r.tend(t.Context())
			require.LessOrEqual(t, len(r.read(t.Context(), everything())), 12)
		}
	}
	got := r.read(t.Context(), everything())
	require.Len(t, got, 12)
	for name, samples := range got {
		require.Len(t, samples, 50, name)
	}
}

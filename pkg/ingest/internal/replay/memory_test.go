package replay

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/stretchr/testify/require"
)

// TestMemoryOfHead: what a head takes is told before it is there, of heads of any kind; never much more
// than what it takes, since it would not be opened for that. Who only measures comes to as many series.
//
// RELIABILITY I9
func TestMemoryOfHead(t *testing.T) {
	plain := func(i int) labels.Labels {
		return labels.FromStrings("__name__", "bomb", "instance", "10.0.0.1:9090", "job", "kubernetes-pods", "user", fmt.Sprint(i))
	}
	wide := func(i int) labels.Labels {
		b := labels.NewScratchBuilder(20)
		for k := range 19 {
			b.Add(fmt.Sprintf("label_%02d", k), fmt.Sprintf("some-longer-value-%d", i%(k*k+1)))
		}
		b.Add("pod", fmt.Sprintf("kubernetes-pod-of-some-deployment-%d", i))
		b.Sort()
		return b.Labels()
	}
	for name, k := range map[string]kind{
		"one sample each": {series: 10_000, samples: 1, lset: plain},
		"open chunks":     {series: 5000, samples: 30, lset: plain},
		"many chunks":     {series: 1000, samples: 300, lset: plain},
		"many labels":     {series: 4000, samples: 5, lset: wide},
		"histograms":      {series: 2000, samples: 10, lset: plain, histograms: true},
	} {
		t.Run(name, func(t *testing.T) {
			o := tsdbOptions(false)
			checkMemory(t, k.killed(t, o), o)
		})
	}
}

// kind is one of heads.
type kind struct {
	series     int
	samples    int // of each
	lset       func(i int) labels.Labels
	histograms bool
}

// killed is the folder of a TSDB with such a head.
func (k kind) killed(t *testing.T, o *tsdb.Options) string {
	t.Helper()
	db := open(t, t.TempDir(), o)
	defer db.Close()
	refs := make([]storage.SeriesRef, k.series)
	for n := range k.samples {
		app := db.AppenderV2(context.Background())
		for i := range refs {
			var h *histogram.Histogram
			if k.histograms {
				h = tsdbutil.GenerateTestHistogram(int64(i + n))
			}
			l := labels.EmptyLabels()
			if refs[i] == 0 {
				l = k.lset(i)
			}
			var err error
			refs[i], err = app.Append(refs[i], l, 0, int64(1+n)*1000, float64(i*n)*1.1, h, nil, storage.AOptions{})
			require.NoError(t, err)
		}
		require.NoError(t, app.Commit())
	}
	return kill(t, db.Dir())
}

// checkMemory compares what is told of the TSDB in dir with what it takes.
func checkMemory(t *testing.T, dir string, o *tsdb.Options) {
	var measured Memory
	require.NoError(t, Measure(dir, func(m Memory) error {
		measured.Series += m.Series
		measured.Chunks += m.Chunks
		measured.Bytes += m.Bytes
		return nil
	}))
	before := liveBytes()
	var told Memory
	cfg := configFor(o, math.MinInt64)
	cfg.Memory = func(m Memory) error {
		told.Series += m.Series
		told.Chunks += m.Chunks
		told.Bytes += m.Bytes
		return nil
	}
	stats, err := Prepare(dir, cfg)
	require.NoError(t, err)
	require.Equal(t, told, stats.Memory)
	require.Equal(t, told.Series, measured.Series)
	with := *o
	with.EnableMemorySnapshotOnShutdown = true
	db := open(t, dir, &with)
	defer db.Close()
	require.EqualValues(t, told.Series, db.Head().NumSeries())
	took := liveBytes() - before
	runtime.KeepAlive(db)
	share := float64(told.Size()) / float64(took)
	t.Logf("%+v: %d bytes, took %d (%.2f); a series %d", told, told.Size(), took, share, took/int64(told.Series))
	require.Less(t, share, 1.1)
	require.Greater(t, share, 0.4)
}

// TestOneSegmentAtATime: however many segments a log has, one is open at a time: descriptors are not counted for
// more of them, and a list that is opened in vain stays open.
//
// RELIABILITY I2
func TestOneSegmentAtATime(t *testing.T) {
	const fds = "/proc/self/fd"
	count := func() int {
		all, err := os.ReadDir(fds)
		require.NoError(t, err)
		return len(all)
	}
	if _, err := os.Stat(fds); err != nil {
		t.Skip("the system does not tell how many files are open")
	}
	o := tsdbOptions(false)
	dir := kind{series: 5000, samples: 20, lset: func(i int) labels.Labels { return labels.FromStrings("__name__", fmt.Sprint("m", i)) }}.killed(t, o)
	_, last, err := wlog.Segments(filepath.Join(dir, walDir))
	require.NoError(t, err)
	const few = 3
	require.Greater(t, last, 2*few)
	before, most := count(), 0
	require.NoError(t, Measure(dir, func(m Memory) error {
		if most == 0 && m.Series > 0 {
			most = count() - before
		}
		return nil
	}))
	require.LessOrEqual(t, most, few)
	most = 0
	require.NoError(t, eachLogged(filepath.Join(dir, walDir), 0, func([]byte) error {
		most = max(most, count()-before)
		return nil
	}))
	require.LessOrEqual(t, most, few)
}

// liveBytes is what is in use after a collection.
func liveBytes() int64 {
	for range 2 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

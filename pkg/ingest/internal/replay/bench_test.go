package replay

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
	"github.com/stretchr/testify/require"
)

// BenchmarkReplay opens a TSDB that was killed with a log of two hours, a sample of
// each series every 15 s, and for comparison only reads and decodes the log.
func BenchmarkReplay(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(40)) // as the binary has it
	for _, n := range benchSizes() {
		dir := benchLog(b, n)
		fresh := func(b *testing.B) string {
			to := b.TempDir()
			require.NoError(b, os.CopyFS(to, os.DirFS(dir)))
			return to
		}
		run := func(name string, f func(b *testing.B, dir string)) {
			b.Run(fmt.Sprintf("%s/series=%d", name, n), func(b *testing.B) {
				for range b.N {
					b.StopTimer()
					to := fresh(b)
					debug.FreeOSMemory()
					resetPeak(b)
					from := cpu()
					b.StartTimer()
					f(b, to)
					b.StopTimer()
					b.ReportMetric((cpu() - from).Seconds(), "cpu-s/op")
					b.ReportMetric(peak(b), "peak-MB")
				}
			})
		}
		run("by=decoding", func(b *testing.B, dir string) { benchDecode(b, dir) })
		run("by=TSDB", func(b *testing.B, dir string) {
			db := open(b, dir, benchOptions())
			b.StopTimer()
			require.EqualValues(b, n, db.Head().NumSeries())
			_ = db.Close()
		})
		run("by=Prepare", func(b *testing.B, dir string) {
			defer debug.SetGCPercent(debug.SetGCPercent(200)) // as package heads has it for an opening
			from, begin := cpu(), time.Now()
			stats, err := Prepare(dir, configFor(benchOptions(), math.MinInt64))
			require.NoError(b, err)
			b.ReportMetric((cpu() - from).Seconds(), "own-cpu-s/op")
			b.ReportMetric(time.Since(begin).Seconds(), "own-s/op")
			b.Log(stats)
			runtime.GC()
			o := benchOptions()
			o.EnableMemorySnapshotOnShutdown = true
			db := open(b, dir, o)
			b.StopTimer()
			require.EqualValues(b, n, db.Head().NumSeries())
			_ = Remove(dir)
			_ = db.Close()
		})
	}
}

// benchSizes are the numbers of series; REPLAY_SERIES adds one.
func benchSizes() []int {
	sizes := []int{10_000}
	if n, err := strconv.Atoi(os.Getenv("REPLAY_SERIES")); err == nil {
		sizes = []int{n}
	}
	return sizes
}

func benchOptions() *tsdb.Options {
	o := tsdb.DefaultOptions()
	o.StripeSize, o.WALCompression = 16384, compression.Snappy
	return o
}

// benchLog makes a folder as a kill leaves it.
func benchLog(b *testing.B, n int) string {
	dir := os.Getenv("REPLAY_DIR")
	if dir != "" {
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
	} else {
		dir = filepath.Join(b.TempDir(), "log")
	}
	made := b.TempDir()
	db := open(b, made, benchOptions())
	r := rand.New(rand.NewPCG(1, 1))
	refs, values := make([]storage.SeriesRef, n), make([]float64, n)
	const start, steps, writeSize = int64(1_700_006_400_000), 479, 2000
	for k := range int64(steps) {
		for from := 0; from < n; from += writeSize {
			app := db.AppenderV2(context.Background())
			for i := from; i < min(from+writeSize, n); i++ {
				l := labels.EmptyLabels()
				if refs[i] == 0 {
					l = labels.FromStrings(
						"__name__", fmt.Sprintf("http_requests_duration_seconds_%d", i%100), "cluster", "eu-west-1", "namespace", fmt.Sprintf("team-%d", i%50),
						"pod", fmt.Sprintf("checkout-7d4b9c6f5-%06d", i/100), "container", "app", "instance", fmt.Sprintf("10.0.%d.%d:8080", i/250%250, i%250), "job", "kubernetes-pods")
				}
				values[i] += float64(r.IntN(100))
				ref, err := app.Append(refs[i], l, 0, start+k*15_000, values[i], nil, nil, storage.AOptions{})
				require.NoError(b, err)
				refs[i] = ref
			}
			require.NoError(b, app.Commit())
		}
		if k%4 == 0 {
			db.ForceHeadMMap() // as the TSDB does each minute
		}
	}
	require.NoError(b, os.CopyFS(dir, os.DirFS(made)))
	require.NoError(b, os.RemoveAll(filepath.Join(dir, "lock")))
	require.NoError(b, db.Close())
	return dir
}

// benchDecode reads and decodes all records of a log.
func benchDecode(b *testing.B, dir string) {
	in, err := wlog.NewSegmentsReader(filepath.Join(dir, walDir))
	require.NoError(b, err)
	defer in.Close()
	r := wlog.NewReader(io.Reader(in))
	dec := record.NewDecoder(labels.NewSymbolTable(), slog.New(slog.DiscardHandler))
	var samples []record.RefSample
	var list []record.RefSeries
	for r.Next() {
		switch dec.Type(r.Record()) {
		case record.Samples:
			samples, err = dec.Samples(r.Record(), samples[:0])
		case record.Series:
			list, err = dec.Series(r.Record(), list[:0])
		}
		require.NoError(b, err)
	}
	require.NoError(b, r.Err())
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// resetPeak forgets the most memory that was taken.
func resetPeak(b *testing.B) {
	require.NoError(b, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0))
}

// peak is the most memory that was taken, MB.
func peak(b *testing.B) float64 {
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(b, err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	require.NoError(b, err)
	return float64(kb) / 1000
}

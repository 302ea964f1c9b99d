package store

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/storeapi"
)

// pods are series as a small cluster has them, each two hours of 15 s.
func pods(n int) (out []blocktest.Series) {
	for pod := range n {
		for m := range 10 {
			out = append(out, blocktest.Series{
				Labels: labels.FromStrings("__name__", fmt.Sprintf("metric_%d", m), "pod", fmt.Sprintf("pod-%04d", pod),
					"namespace", fmt.Sprintf("ns-%d", pod%7), "job", "kubelet"),
				Samples: blocktest.Floats(0, 7_200_000, 15_000, func(t int64) float64 { return float64((t+int64(pod*7919))%int64(100_003*(m+1))) * 1.7 }),
			})
		}
	}
	return out
}

// TestReads prints which ranged GETs a query costs; the golden file is to be checked by eye.
func TestReads(t *testing.T) {
	var bkt *watched
	var s *Store
	datadriven.RunTest(t, "testdata/reads", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "block":
			bkt = newWatched()
			n := 300
			m := upload(t, bkt, pods(n), labels.FromStrings("cluster", "a"), blocktest.Options{SegmentBytes: 1 << 20})
			return fmt.Sprintf("index %d bytes, %d segments, longest series entry %d, longest chunk %d\n",
				indexSize(m), len(m.Thanos.SegmentFiles), m.Thanos.IndexStats.SeriesMaxSize, m.Thanos.IndexStats.ChunkMaxSize)
		case "start":
			var args []string
			for _, a := range d.CmdArgs {
				args = append(args, "--"+a.Key+"="+a.Vals[0])
			}
			s = newGateway(t, bkt, args...)
		case "series":
			sel := selection(t, d.Input)
			sel.SkipChunks = d.HasArg("skip-chunks")
			series, _ := drain(t, s, sel)
			return fmt.Sprintf("%s%d series, %d chunks\n", bkt.takeReads(), len(series), chunksOf(series))
		case "label-values":
			var name string
			d.ScanArgs(t, "name", &name)
			values, _, err := s.LabelValues(t.Context(), name, selection(t, d.Input))
			require.NoError(t, err)
			return fmt.Sprintf("%s%d values\n", bkt.takeReads(), len(values))
		default:
			t.Fatalf("unknown command %s", d.Cmd)
		}
		return bkt.takeReads()
	})
}

func indexSize(m block.Meta) int64 {
	for _, f := range m.Thanos.Files {
		if f.RelPath == block.IndexFilename {
			return f.SizeBytes
		}
	}
	return 0
}

// selection parses "{selector} mint maxt", times optional.
func selection(t testing.TB, text string) storeapi.Selection {
	t.Helper()
	selector, times, _ := strings.Cut(strings.TrimSpace(text), "} ")
	sel := storeapi.Selection{Mint: 0, Maxt: 1 << 50}
	if times != "" {
		selector += "}"
		_, err := fmt.Sscan(times, &sel.Mint, &sel.Maxt)
		require.NoError(t, err)
	}
	if selector != "{}" {
		ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(selector)
		require.NoError(t, err)
		sel.Matchers = ms
	}
	return sel
}

// drain reads an answer to its end.
func drain(t testing.TB, s storeapi.Store, sel storeapi.Selection) ([]storeapi.Series, storeapi.Report) {
	t.Helper()
	series, report, err := readAll(t, s, sel)
	require.NoError(t, err)
	return series, report
}

// readAll is drain that returns the error.
func readAll(t testing.TB, s storeapi.Store, sel storeapi.Selection) (out []storeapi.Series, _ storeapi.Report, _ error) {
	t.Helper()
	set, err := s.Series(t.Context(), sel)
	if err != nil {
		return nil, storeapi.Report{}, err
	}
	defer set.Close()
	for set.Next() {
		at := set.At()
		at.Chunks = append([]storeapi.Chunk(nil), at.Chunks...)
		out = append(out, at)
	}
	return out, set.Report(), set.Err()
}

func chunksOf(series []storeapi.Series) (n int) {
	for _, s := range series {
		n += len(s.Chunks)
	}
	return n
}

// RELIABILITY P7: a selection that is sparse in its block reads, and holds, no
// more than its window allows, though its chunks are nearer than the gap.
func TestSparseSelectionKeepsToItsWindow(t *testing.T) {
	const window = 64 << 10
	bkt := newWatched()
	upload(t, bkt, pods(300), labels.FromStrings("cluster", "a"), blocktest.Options{})
	s := newGateway(t, bkt, fmt.Sprintf("--store.chunk-window-size=%d", window))
	bkt.takeReads()
	var mu sync.Mutex
	var most int64
	bkt.before = func(name string) {
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(name, "/chunks/") {
			most = max(most, s.chunkPool.Used())
		}
	}
	series, report := drain(t, s, selection(t, `{pod=~"pod-0[012][0-9]0"}`))
	require.Len(t, series, 300)
	require.Zero(t, s.chunkPool.Used())
	require.LessOrEqual(t, most, int64(window+window/4), "bytes held at once")

	var read int64
	for _, r := range bkt.reads {
		if strings.Contains(r.name, "/chunks/") {
			read += r.n
			require.LessOrEqual(t, r.n, int64(window))
		}
	}
	require.Less(t, read, 3*report.Stats.ChunksTouchedBytes, "bytes read for bytes wanted")
}

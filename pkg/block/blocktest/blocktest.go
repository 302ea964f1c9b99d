// Package blocktest writes real TSDB blocks for tests: every chunk encoding,
// chosen chunk borders and segment sizes, any meta.json. It uses Prometheus'
// writers for the bytes and no head, so that a block costs milliseconds and
// comes out the same each time.
package blocktest

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/firnline/firnline/pkg/block"
)

// Series are labels, without external ones, and their samples in order of time.
// Samples of all kinds may alternate: a change of kind starts a new chunk.
type Series struct {
	Labels  labels.Labels
	Samples []Sample

	// Chunks stand in for Samples where not empty: written as they are, such as
	// aggregate chunks of encoding 0xff. MinTime, MaxTime and Chunk are used.
	Chunks []chunks.Meta
}

// Sample is a float or, where H or FH is set, a histogram. Custom buckets are a
// histogram of schema -53.
type Sample struct {
	T  int64 // ms
	ST int64 // start timestamp, ms; kept only with Options.StartTimestamps
	F  float64
	H  *histogram.Histogram
	FH *histogram.FloatHistogram
}

// Options of a block. The zero value is a raw block of level 1, cut now.
type Options struct {
	ID               ulid.ULID // zero: a new one
	MinTime, MaxTime int64     // ms; both zero: what the samples need
	SamplesPerChunk  int       // 0: 120
	SegmentBytes     int64     // of a file in chunks/; 0: 16 MiB
	StartTimestamps  bool      // encodings 4, 5 and 6 instead of 1, 2 and 3
	XOR2             bool      // encoding 4 instead of 1

	Level      int         // 0: 1
	Sources    []ulid.ULID // nil: the block itself
	Parents    []block.Desc
	Hints      []string
	Resolution int64  // ms
	Source     string // "": test
}

// Floats returns samples with value f(t) at start, start+step, … before end, ms.
func Floats(start, end, step int64, f func(t int64) float64) []Sample {
	var out []Sample
	for t := start; t < end; t += step {
		out = append(out, Sample{T: t, F: f(t)})
	}
	return out
}

// Write writes a block of series, in any order, to dir/<ULID> and returns its
// meta. With external labels its meta.json has the thanos section; without, it
// is as Prometheus leaves it in its data folder.
func Write(tb testing.TB, dir string, series []Series, ext labels.Labels, opts Options) block.Meta {
	tb.Helper()
	if opts.ID.IsZero() {
		opts.ID = ulid.Make()
	}
	m := newMeta(opts)
	bdir := filepath.Join(dir, opts.ID.String())
	noError(tb, os.MkdirAll(filepath.Join(bdir, block.ChunksDirname), 0o755))

	sorted := slices.SortedFunc(slices.Values(series), func(a, b Series) int { return labels.Compare(a.Labels, b.Labels) })
	for i := range sorted {
		if len(sorted[i].Chunks) == 0 {
			sorted[i].Chunks = Chunks(tb, sorted[i].Samples, opts)
		} else {
			sorted[i].Chunks = slices.Clone(sorted[i].Chunks)
		}
	}
	writeChunks(tb, bdir, sorted, opts)
	writeIndex(tb, bdir, sorted)
	count(&m, sorted, opts)

	if ext.IsEmpty() {
		writePlainMeta(tb, bdir, m)
		return m
	}
	m.Thanos.Version = 1
	m.Thanos.Labels = ext.Map()
	noError(tb, block.WriteMeta(bdir, &m))
	return m
}

// Upload sends the block m, which Write has written to dir, to a bucket as a
// sidecar would and returns its meta as it stands there.
func Upload(tb testing.TB, bkt block.Bucket, dir string, m block.Meta) block.Meta {
	tb.Helper()
	up := block.Uploader{Bucket: bkt}
	sent, err := up.Upload(context.Background(), filepath.Join(dir, m.ULID.String()), &m)
	noError(tb, err)
	return *sent.Meta
}

func newMeta(opts Options) block.Meta {
	m := block.Meta{ULID: opts.ID, Version: 1, MinTime: opts.MinTime, MaxTime: opts.MaxTime}
	m.Compaction = block.Compaction{Level: max(opts.Level, 1), Sources: opts.Sources, Parents: opts.Parents, Hints: opts.Hints}
	if opts.Sources == nil {
		m.Compaction.Sources = []ulid.ULID{opts.ID}
	}
	m.Thanos.Downsample.Resolution = opts.Resolution
	m.Thanos.Source = opts.Source
	if opts.Source == "" {
		m.Thanos.Source = block.SourceTest
	}
	return m
}

// writePlainMeta writes meta.json without the thanos section.
func writePlainMeta(tb testing.TB, bdir string, m block.Meta) {
	tb.Helper()
	data, err := m.Encode()
	noError(tb, err)
	head, _, found := strings.Cut(string(data), ",\n\t\"thanos\": {")
	if !found {
		tb.Fatalf("no thanos section in %s", data)
	}
	noError(tb, block.WriteFile(filepath.Join(bdir, block.MetaFilename), []byte(head+"\n}\n")))
}

func writeChunks(tb testing.TB, bdir string, series []Series, opts Options) {
	tb.Helper()
	size := opts.SegmentBytes
	if size == 0 {
		size = 16 << 20
	}
	w, err := chunks.NewWriter(filepath.Join(bdir, block.ChunksDirname), chunks.WithSegmentSize(size))
	noError(tb, err)
	for _, s := range series {
		noError(tb, w.WriteChunks(s.Chunks...)) // sets their Ref
	}
	noError(tb, w.Close())
}

func writeIndex(tb testing.TB, bdir string, series []Series) {
	tb.Helper()
	w, err := index.NewWriter(context.Background(), filepath.Join(bdir, block.IndexFilename))
	noError(tb, err)
	symbols := map[string]struct{}{}
	for _, s := range series {
		s.Labels.Range(func(l labels.Label) {
			symbols[l.Name] = struct{}{}
			symbols[l.Value] = struct{}{}
		})
	}
	names := make([]string, 0, len(symbols))
	for s := range symbols {
		names = append(names, s)
	}
	slices.Sort(names)
	for _, s := range names {
		noError(tb, w.AddSymbol(s))
	}
	for i, s := range series {
		noError(tb, w.AddSeries(storage.SeriesRef(i), s.Labels, s.Chunks...))
	}
	noError(tb, w.Close())
}

// count fills in the stats and, where it wasn't given, the time range.
func count(m *block.Meta, series []Series, opts Options) {
	ranged := opts.MinTime != 0 || opts.MaxTime != 0
	first := true
	m.Stats.NumSeries = uint64(len(series))
	for _, s := range series {
		for _, c := range s.Chunks {
			m.Stats.NumChunks++
			n := uint64(c.Chunk.NumSamples())
			m.Stats.NumSamples += n
			switch c.Chunk.Encoding() {
			case chunkenc.EncXOR, chunkenc.EncXOR2:
				m.Stats.NumFloatSamples += n
			case chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
				m.Stats.NumHistogramSamples += n
			}
			if ranged {
				continue
			}
			if first || c.MinTime < m.MinTime {
				m.MinTime = c.MinTime
			}
			if first || c.MaxTime+1 > m.MaxTime {
				m.MaxTime = c.MaxTime + 1
			}
			first = false
		}
	}
}

func noError(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

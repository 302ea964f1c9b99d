// Package output writes blocks: segments of chunks as they come, and an index
// from numbers instead of strings.
//
//	Chunk ───────────────────────────────────────────► chunks/000001 …
//	Series ──► series.tmp, numbers of the union ──┐
//	                                     Close: renumber to the symbols in use
//	                                              ├──► index: symbols, series
//	                   postings.tmp, sorted runs ◄┘
//	                                └── merged ──────► index: postings, offset table
//
// Nothing is synced: a block lies here until it is in the bucket, and one that a
// power failure leaves is thrown away. That what is read is what was written is
// told by the checksums in Content.
//
// The same calls write the same bytes. Memory is bounded by Config whatever the
// number of series; besides the segments, the disk holds at most twice the index
// while Close is at work.
package output

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/input"
)

// ErrTooLarge refuses a block that the format has no room for. Split it.
var ErrTooLarge = errors.New("block is too large for its format")

// errInternal marks calls that no input should lead to.
var errInternal = errors.New("internal error of the compactor, please report it")

// Config bounds what a Writer takes.
type Config struct {
	SegmentBytes int64 // of a file under chunks/; 0, and more than that: 512 MiB
	// MemoryBytes is for sorting postings while the index is finished; at least
	// 1 MiB is taken. Beside that a Writer holds 2 MiB of buffers and 3 bits for
	// each symbol of the union.
	MemoryBytes int64
}

// minMemory is what sorting postings takes at least.
const minMemory = 1 << 20

// Samples is how many samples the chunks of a series hold. For aggregate chunks
// these are the ones of their count (COMPAT A2.1).
type Samples struct{ Floats, Histograms uint64 }

// Writer writes one block. It is for one goroutine. After an error of Chunk or
// Series it stays with it, and only Abort is of use.
type Writer struct {
	dir  string
	syms *Symbols
	cfg  Config
	env  environment

	segments segments
	around   []int64 // sizes of segments that others have written
	series   seriesSpool
	stats    block.Stats
	content  *block.Content
	err      error
}

// environment is what tests replace.
type environment struct {
	open          opener
	maxIndexBytes int64
}

// maxIndexBytes is where references of 32 bits to what is aligned to 16 end.
const maxIndexBytes = 16 << 32

// Create begins a block in dir, a folder that is empty or not there yet. The
// numbers of its series' labels are those of syms.
func Create(dir string, syms *Symbols, cfg Config) (*Writer, error) {
	return create(dir, syms, cfg, environment{open: createFile, maxIndexBytes: maxIndexBytes})
}

// CreateAround begins a block of which only the index is written here: its
// segments, of these sizes in bytes, are somewhere else already. Chunk is of no
// use then, and Series takes every reference into them, in any order.
func CreateAround(dir string, syms *Symbols, segmentBytes []int64, cfg Config) (*Writer, error) {
	w, err := Create(dir, syms, cfg)
	if err != nil {
		return nil, err
	}
	w.around, w.series.around = segmentBytes, segmentBytes
	return w, nil
}

func create(dir string, syms *Symbols, cfg Config, env environment) (*Writer, error) {
	if cfg.SegmentBytes <= 0 || cfg.SegmentBytes > chunks.DefaultChunkSegmentSize {
		cfg.SegmentBytes = chunks.DefaultChunkSegmentSize
	}
	cfg.MemoryBytes = max(cfg.MemoryBytes, minMemory)
	w := &Writer{dir: dir, syms: syms, cfg: cfg, env: env}
	if err := w.begin(); err != nil {
		return nil, w.failed(err)
	}
	return w, nil
}

func (w *Writer) begin() (err error) {
	if entries, err := os.ReadDir(w.dir); err == nil && len(entries) > 0 {
		return errors.New("the folder is not empty")
	}
	w.segments = segments{open: w.env.open, dir: filepath.Join(w.dir, block.ChunksDirname), limit: w.cfg.SegmentBytes}
	if err := os.MkdirAll(w.segments.dir, 0o755); err != nil {
		return err
	}
	if w.series, err = newSeriesSpool(w.env.open, filepath.Join(w.dir, seriesFilename), w.syms.Len()); err != nil {
		return errors.Join(err, os.RemoveAll(w.dir))
	}
	return nil
}

func (w *Writer) failed(err error) error { return fmt.Errorf("write block %s: %w", w.dir, err) }

// Chunk appends a chunk to the segments and returns its reference, for Series.
// data is not kept.
func (w *Writer) Chunk(enc chunkenc.Encoding, data []byte) (ref uint64, err error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.around != nil {
		return 0, w.failed(fmt.Errorf("%w: a chunk for a block whose segments are there", errInternal))
	}
	if ref, err = w.segments.add(enc, data); err != nil {
		w.err = w.failed(err)
	}
	return ref, w.err
}

// Series adds an entry to the index. Series come in strictly ascending order of
// their labels, chunks by time without overlap, their references in the order in
// which Chunk gave them out. Neither slice is kept.
func (w *Writer) Series(labels []input.Label, chunks []input.Chunk, samples Samples) error {
	if w.err != nil {
		return w.err
	}
	if err := w.series.add(labels, chunks, w.segments.next); err != nil {
		w.err = w.failed(err)
		return w.err
	}
	w.stats.NumSeries++
	w.stats.NumChunks += uint64(len(chunks))
	w.stats.NumFloatSamples += samples.Floats
	w.stats.NumHistogramSamples += samples.Histograms
	w.stats.NumSamples += samples.Floats + samples.Histograms
	return nil
}

// Close writes the index. meta.json is the caller's. A Close that fails leaves
// nothing behind.
func (w *Writer) Close() (block.Stats, error) {
	if w.err == nil {
		if err := w.finish(); err != nil {
			w.err = w.failed(err)
		}
	}
	if w.err != nil {
		return block.Stats{}, errors.Join(w.err, w.Abort())
	}
	return w.stats, nil
}

// Content tells what Close has written: what block.Verify would find, and
// checksums, for Uploader.UploadWritten. It is nil before.
func (w *Writer) Content() *block.Content { return w.content }

// Abort removes the folder, also after Close. It may be called again.
func (w *Writer) Abort() error {
	w.segments.close()
	w.series.close()
	w.segments, w.series, w.content = segments{}, seriesSpool{}, nil
	if w.err == nil {
		w.err = w.failed(errors.New("aborted"))
	}
	return os.RemoveAll(w.dir)
}

func (w *Writer) finish() error {
	if err := w.segments.finish(); err != nil {
		return err
	}
	stats, err := w.writeIndex()
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	w.content = w.listContent(stats)
	return nil
}

// listContent gathers what was found out while writing.
func (w *Writer) listContent(index indexStats) *block.Content {
	c := &block.Content{Series: w.stats.NumSeries, Chunks: w.stats.NumChunks}
	c.IndexStats = block.IndexStats{SeriesMaxSize: index.longest, ChunkMaxSize: w.segments.longest}
	for i, segment := range w.segments.done {
		name := segmentName(i)
		c.SegmentFiles = append(c.SegmentFiles, name)
		c.Files = append(c.Files, block.File{RelPath: block.ChunksDirname + "/" + name, SizeBytes: segment.size})
		c.Sums = append(c.Sums, segment.sum)
	}
	c.Files = append(c.Files, block.File{RelPath: block.IndexFilename, SizeBytes: index.size})
	c.Sums = append(c.Sums, index.sum)
	return c
}

// Package input reads blocks out of a bucket from front to back, in ranges of a
// few megabytes, without a copy on disk.
//
// Symbols, series and chunks are three streams. Each reads one object forward by
// windows, the next one while the one before is used, so that it has at most two
// in memory. Every byte that is handed out has had its checksum compared, that of
// symbols when their stream has come to its end. What has the wrong checksum is
// read a second time, since it may have been the way; only then is the block
// called corrupt. Requests are retried by the bucket, not here.
//
// Of a Block, Symbols and series (Next, Seek) belong to one goroutine and Chunk
// to one, which may be another. Reads may be called at any time.
package input

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"sync/atomic"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/layout"
)

// Label is a label as numbers into a symbol table.
type Label = layout.Label

// CompareLabels orders series whose labels are numbers into the same symbol
// table, as labels.Compare orders their strings: that table is sorted.
func CompareLabels(a, b []Label) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return cmp.Or(cmp.Compare(a[i].Name, b[i].Name), cmp.Compare(a[i].Value, b[i].Value))
		}
	}
	return cmp.Compare(len(a), len(b))
}

// Chunk is where a chunk lies and the time it spans, ms, both inclusive.
type Chunk = layout.Chunk

// Series is one entry of an index, with numbers of the block's own symbols. Its
// slices are valid until the next one is read.
type Series = layout.Series

// DefaultWindowBytes is so long that the time to a request's first byte is small
// against that of its body.
const DefaultWindowBytes = 4 << 20

// Config bounds what is in memory.
type Config struct {
	WindowBytes int64 // of one read; each stream holds at most two. 0: DefaultWindowBytes
}

func (c Config) windowBytes() int64 {
	if c.WindowBytes <= 0 {
		return DefaultWindowBytes
	}
	return c.WindowBytes
}

// Error is an error of reading a block, and says whose. It is the block that is
// bad where the error wraps block.ErrCorrupt or block.ErrUnknownVersion; any
// other, such as the bucket's, may be gone another time.
type Error struct {
	Block ulid.ULID
	Err   error
}

func (e *Error) Error() string { return fmt.Sprintf("block %s: %v", e.Block, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Reads is what was asked of the bucket, and how much of it came.
type Reads struct{ Requests, Bytes int64 }

// Block is a block being read. Close it.
type Block struct {
	meta    *block.Meta
	remote  *block.Remote
	toc     layout.TOC
	window  int64
	symbols *SymbolStream // nil: not begun, or done
	series  seriesReader
	chunks  chunkReader

	requests, bytes atomic.Int64
}

// Open finds the block's files and reads head and table of contents of its index.
func Open(ctx context.Context, bkt block.Bucket, m *block.Meta, cfg Config) (*Block, error) {
	b := &Block{meta: m, window: cfg.windowBytes()}
	var err error
	if b.remote, err = block.OpenRemote(ctx, bkt, m, b.count); err != nil {
		return nil, b.fail(err)
	}
	if b.toc, err = b.remote.TOC(ctx); err != nil {
		return nil, b.fail(err)
	}
	b.series.init(b)
	b.chunks.init(b)
	return b, nil
}

// beginAtOnce is how many blocks are begun side by side.
const beginAtOnce = 8

// Begin has the first series and, if chunks are wanted, the first chunks of blocks
// read in the background, so that they don't wait for each other. What is wrong
// with them shows when they are asked for.
func Begin(ctx context.Context, blocks []*Block, chunks bool) {
	var g errgroup.Group
	g.SetLimit(beginAtOnce)
	for _, b := range blocks {
		g.Go(func() error { b.begin(ctx, chunks); return nil })
	}
	_ = g.Wait() // none has an error
}

func (b *Block) begin(ctx context.Context, chunks bool) {
	b.series.begin()
	b.series.s.begin(ctx)
	if !chunks || len(b.remote.Segments) == 0 {
		return
	}
	if r, err := b.chunks.begin(ctx, 0); err == nil {
		r.ahead.begin(ctx)
	}
}

// Meta is what the block was opened with.
func (b *Block) Meta() *block.Meta { return b.meta }

// Reads tells what reading the block has taken so far.
func (b *Block) Reads() Reads { return Reads{Requests: b.requests.Load(), Bytes: b.bytes.Load()} }

func (b *Block) count(bytes int) {
	b.requests.Add(1)
	b.bytes.Add(int64(bytes))
}

// Close ends what is read ahead and waits for it.
func (b *Block) Close() error {
	b.endSymbols()
	b.series.close()
	b.chunks.close()
	return nil
}

func (b *Block) fail(err error) error { return &Error{b.meta.ULID, err} }

// ReadAheadBytes is what the windows of a Block take as a rule: of each object two
// or, where it fits one, that.
func ReadAheadBytes(m *block.Meta, cfg Config) int64 {
	windows := func(size, window int64) int64 {
		if size <= window {
			return size + headroom
		}
		return 2 * (window + headroom)
	}
	e, ok := m.Extent()
	if !ok { // somebody else's meta: what it takes at most
		e = block.Extent{IndexBytes: math.MaxInt64, SegmentBytes: math.MaxInt64}
	}
	sum := windows(e.IndexBytes, cfg.windowBytes())
	for others := range min(max(e.Segments, 1), mostSegments) {
		sum += windows(e.SegmentBytes, shareOf(cfg.windowBytes(), others))
	}
	return sum
}

// MemoryBytes is how much a Block holds at most, known before it is opened: the
// windows of the index, since the stream of the symbols is over before series are
// read, and of as many segments as may be read side by side. Single entries that are longer than the meta's index_stats say, or than
// usual where those are missing, come on top.
func MemoryBytes(m *block.Meta, cfg Config) int64 {
	const usualSeries, usualChunk = 16 << 10, 32 << 10
	index, segment, segments := cfg.windowBytes(), cfg.windowBytes(), 1
	if e, ok := m.Extent(); ok {
		index, segment, segments = min(index, e.IndexBytes), min(segment, e.SegmentBytes), max(e.Segments, 1)
	}
	entry, chunk := m.Thanos.IndexStats.SeriesMaxSize, m.Thanos.IndexStats.ChunkMaxSize
	if entry == 0 {
		entry = usualSeries
	}
	if chunk == 0 {
		chunk = usualChunk
	}
	streams := 2 * (index + headroom)
	for others := range min(segments, mostSegments) {
		streams += 2*(shareOf(segment, others)+headroom) + 2*(sideWindow+headroom)
	}
	// An entry is held as it is, where it crosses windows and when it is probed;
	// decoded, a chunk of at least three bytes becomes one of 24, twice.
	return streams + block.SeriesRefsAtOnce*layout.RefLen + 2*entry + 2*8*entry + chunk
}

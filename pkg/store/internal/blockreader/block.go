// Package blockreader reads one block in the bucket: matchers to postings to
// series entries to chunks, each step a few ranged reads.
//
// A Block is safe for concurrent use; what a call starts, it waits for. Bytes
// are counted against the request's limits before they are fetched, and each
// record's checksum is verified wherever it came from.
package blockreader

import (
	"fmt"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/store/internal/fetch"
	"github.com/firnline/firnline/pkg/store/internal/indexcache"
	"github.com/firnline/firnline/pkg/store/internal/indexheader"
	"github.com/firnline/firnline/pkg/storeapi"
)

// Files are the objects of a block and what its writer says of the sizes within.
type Files struct {
	Index        fetch.Object
	Segments     []fetch.Object // in order: chunk references hold their numbers
	MaxSeriesLen int64          // bytes of the longest series entry; 0 where not known
	MaxChunkLen  int64          // bytes of the longest chunk; 0 where not known
}

// Guesses of sizes, for blocks whose writer didn't say.
type Guesses struct {
	Series int64 // bytes
	Chunk  int64 // bytes
}

// Parts are what blocks share.
type Parts struct {
	Fetcher *fetch.Fetcher
	Cache   *indexcache.Cache
	Guesses Guesses
}

// mostGuess bounds what is believed of a writer's word on lengths, in bytes: what
// is longer than its guess is read again to the byte, so a low one does no harm.
const mostGuess = 1 << 20

// Block reads one block.
type Block struct {
	id     ulid.ULID
	files  Files
	header *indexheader.Header
	parts  Parts
}

// New makes a Block and reads nothing.
func New(id ulid.ULID, files Files, header *indexheader.Header, parts Parts) *Block {
	if files.MaxSeriesLen <= 0 {
		files.MaxSeriesLen = parts.Guesses.Series
	}
	if files.MaxChunkLen <= 0 {
		files.MaxChunkLen = parts.Guesses.Chunk
	}
	files.MaxSeriesLen, files.MaxChunkLen = min(files.MaxSeriesLen, mostGuess), min(files.MaxChunkLen, mostGuess)
	return &Block{id: id, files: files, header: header, parts: parts}
}

// Limits are what one request may take; all its blocks share them.
type Limits struct {
	Bytes   *fetch.Budget // fetched of index and chunks
	Touched *fetch.Budget // series that matchers select, before time and shard do
	Samples *fetch.Budget // in chunks fetched, taking each as 120
	Held    *fetch.Budget // bytes read that are in memory; all requests share this one
}

// terms are those of a reading that is to hold window bytes.
func (l *Limits) terms(window int64) fetch.Terms {
	return fetch.Terms{Bytes: l.Bytes, Held: l.Held, Window: window}
}

// Work is one request's work on one block. It is used by one goroutine at a time.
type Work struct {
	Limits Limits
	Stats  storeapi.Stats
}

// spent counts what a batch of reads took.
func (w *Work) spent(c fetch.Cost) {
	w.Stats.DownloadedBytes += c.Bytes
	w.Stats.GetAllNanos += c.Nanos
}

// corrupt is an error about the bytes of an object.
func corrupt(object string, at int64, format string, args ...any) error {
	return fmt.Errorf("%w: object %s at offset %d: %s", storeapi.ErrCorrupt, object, at, fmt.Sprintf(format, args...))
}

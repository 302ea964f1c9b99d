package store

import (
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/prometheus/common/model"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/store/internal/fetch"
	"github.com/firnline/firnline/pkg/store/internal/notereader"
)

// Values of Config.HeaderDownload.
const (
	HeaderEager = "eager"
	HeaderLazy  = "lazy"
)

// Config is what an operator may set; RegisterFlags fills in the defaults.
type Config struct {
	Blocks  block.FetcherConfig     // which blocks are ours
	Deletes block.DeleteWatchConfig // what of them is hidden

	DataDir         string         // local folder: metas and index headers; all of it can be made again
	SyncInterval    model.Duration // between looks for new and removed blocks
	SyncConcurrency int            // blocks loaded at once

	HeaderDownload    string         // HeaderEager or HeaderLazy
	HeaderIdleTimeout model.Duration // a loaded header nobody uses is unloaded; 0: never

	IndexCacheSize       ByteSize
	IndexCacheConfig     string // Thanos' YAML, which takes the place of the size
	IndexCacheConfigFile string // or a file with it

	ChunkPoolSize    ByteSize // of indexes and chunks held by all requests; 0: no limit
	ChunkWindowSize  ByteSize // chunk bytes held by one request
	ReadGap          ByteSize // ranges nearer than this are read together
	ReadSize         ByteSize // ranges longer than this are read in parts
	ReadConcurrency  int      // ranged reads at once
	ReadsPerRequest  int      // of them for one batch of one block
	SeriesBatch      int      // series entries read at once
	MaxSeriesGuess   ByteSize // of a block that doesn't say
	MaxChunkGuess    ByteSize // of a block that doesn't say
	MaxConcurrency   int      // requests at once that read series
	TouchedLimit     int64    // series, 0: no limit; so below
	FetchedSamples   int64
	DownloadedLimit  ByteSize
	RequestSeries    int64
	RequestSamples   int64
	RequestExemplars int64

	NotesCacheSize    ByteSize       // notes (exemplars and metadata) kept in memory
	NotesListInterval model.Duration // between looks for new ones
	NotesConcurrency  int            // read at once
	MaxMetadata       int            // meanings of metrics, for each set of external labels

	enableLazyReader bool // accepted, always true
}

// Names of the flags that errors about limits mention.
const (
	flagTouched          = "store.grpc.touched-series-limit"
	flagFetchedSamples   = "store.grpc.series-sample-limit"
	flagDownloaded       = "store.grpc.downloaded-bytes-limit"
	flagRequestSeries    = "store.limits.request-series"
	flagRequestSamples   = "store.limits.request-samples"
	flagRequestExemplars = "store.limits.request-exemplars"
	flagMaxMetadata      = "store.notes.max-metadata"
	flagChunkPool        = "chunk-pool-size"
	flagConcurrency      = "store.grpc.series-max-concurrency"
)

// RegisterFlags sets the defaults and registers the flags, with Thanos' names
// where Thanos has them.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	c.Blocks.RegisterFlags(fs)
	c.Deletes.RegisterFlags(fs)
	c.SyncInterval = model.Duration(3 * time.Minute)
	c.HeaderIdleTimeout = model.Duration(5 * time.Minute)
	c.IndexCacheSize, c.ChunkPoolSize, c.ChunkWindowSize = 250<<20, 2<<30, 64<<20
	c.ReadGap, c.ReadSize, c.MaxSeriesGuess, c.MaxChunkGuess = 512<<10, 8<<20, 64<<10, 16000

	fs.StringVar(&c.DataDir, "data-dir", "./data", "Local folder for copies of meta.json and index headers. Nothing in it is needed: what is missing is fetched again.")
	fs.Var(&c.SyncInterval, "sync-block-duration", "Time between two looks into the bucket for new and removed blocks, at most: while the bucket has a manifest that is kept up to date, 30s.")
	fs.IntVar(&c.SyncConcurrency, "block-sync-concurrency", 20, "How many new blocks are prepared at once.")
	fs.StringVar(&c.HeaderDownload, "store.index-header-lazy-download-strategy", HeaderEager, "When index headers are built: eager, as soon as a block is found, or lazy, with the first query of the block.")
	fs.Var(&c.HeaderIdleTimeout, "store.index-header-lazy-reader-idle-timeout", "An index header that no query has used for this long is unloaded from memory; it stays on disk. 0 never unloads.")
	fs.BoolVar(&c.enableLazyReader, "store.enable-index-header-lazy-reader", true, "Accepted for compatibility: index headers are always loaded when a query first needs them.")
	c.registerMemory(fs)
	c.registerLimits(fs)
	c.registerNotes(fs)
}

func (c *Config) registerNotes(fs *flag.FlagSet) {
	c.NotesCacheSize, c.NotesListInterval = 64<<20, model.Duration(5*time.Minute)
	fs.Var(&c.NotesCacheSize, "store.notes.cache-size", "Memory for notes (exemplars and metadata of a block) that requests have read. 0 turns the cache off.")
	fs.Var(&c.NotesListInterval, "store.notes.list-interval", "Time between two listings of the notes in the bucket, at least. They are listed when one is asked for.")
	fs.IntVar(&c.NotesConcurrency, "store.notes.concurrency", 16, "Notes read from the bucket at once.")
	fs.IntVar(&c.MaxMetadata, flagMaxMetadata, 500_000, "Types, helps and units of metrics kept in memory for each set of external labels, once they are asked for. Of more, an answer has the first and a warning.")
}

func (c *Config) notes() notereader.Config {
	return notereader.Config{CacheBytes: int64(c.NotesCacheSize), Concurrency: c.NotesConcurrency, ListInterval: time.Duration(c.NotesListInterval)}
}

func (c *Config) registerMemory(fs *flag.FlagSet) {
	fs.Var(&c.IndexCacheSize, "index-cache-size", "Memory for postings and series entries that queries have read. 0 turns the cache off.")
	fs.StringVar(&c.IndexCacheConfig, "index-cache.config", "", "Index cache as YAML: type IN-MEMORY, config with max_size. It overrides --index-cache-size.")
	fs.StringVar(&c.IndexCacheConfigFile, "index-cache.config-file", "", "File with the YAML of --index-cache.config.")
	fs.Var(&c.ChunkPoolSize, flagChunkPool, "Bytes of indexes and chunks that all requests together may hold; a request that would exceed it fails. 0 is no limit.")
	fs.Var(&c.ChunkWindowSize, "store.chunk-window-size", "Chunk bytes that one request reads ahead of what it has sent.")
	fs.Var(&c.ReadGap, "store.read-gap", "Ranges of an object up to this far apart are read by one request to the bucket; less far where many blocks share a small --store.chunk-window-size.")
	fs.Var(&c.ReadSize, "store.read-size", "A range longer than this is read by several requests to the bucket at the same time.")
	fs.IntVar(&c.ReadConcurrency, "store.read-concurrency", 128, "Ranged reads sent to the bucket at once.")
	fs.IntVar(&c.ReadsPerRequest, "store.read-concurrency-per-block", 16, "Ranged reads sent to the bucket at once for one block of one request.")
	fs.IntVar(&c.SeriesBatch, "debug.series-batch-size", 10000, "Series whose entries are read from an index at once.")
	fs.Var(&c.MaxSeriesGuess, "debug.estimated-max-series-size", "Length of a series entry, for blocks whose meta.json doesn't tell the longest.")
	fs.Var(&c.MaxChunkGuess, "debug.estimated-max-chunk-size", "Length of a chunk, for blocks whose meta.json doesn't tell the longest.")
}

func (c *Config) registerLimits(fs *flag.FlagSet) {
	fs.IntVar(&c.MaxConcurrency, flagConcurrency, 20, "Requests served at once that read series, or the names or values of their labels; more wait.")
	fs.Int64Var(&c.TouchedLimit, flagTouched, 0, "Series that one request may touch, counted per block; a request that needs more fails. 0 is no limit.")
	fs.Int64Var(&c.FetchedSamples, flagFetchedSamples, 0, "Samples that one request may fetch, each chunk counted as 120; a request that needs more fails. 0 is no limit.")
	fs.Var(&c.DownloadedLimit, flagDownloaded, "Bytes of index and chunks that one request may fetch from the bucket, counted beforehand; a request that needs more fails. 0 is no limit.")
	fs.Int64Var(&c.RequestSeries, flagRequestSeries, 0, "Series that one request may return; a request that needs more fails. 0 is no limit.")
	fs.Int64Var(&c.RequestExemplars, flagRequestExemplars, 100_000, "Exemplars that one request may return; a request that needs more fails. 0 is no limit.")
	fs.Int64Var(&c.RequestSamples, flagRequestSamples, 0, "Samples that one request may return, each chunk counted as 120; a request that needs more fails. 0 is no limit.")
}

// Validate names each flag that can't be right.
func (c *Config) Validate() error {
	_, err := c.indexCacheSize()
	errs := []error{c.Blocks.Validate(), c.Deletes.Validate(), err}
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.DataDir != "", "--data-dir is empty: name a folder that can be written to")
	check(c.SyncInterval > 0, "--sync-block-duration=%s: give more than 0", c.SyncInterval)
	check(c.HeaderDownload == HeaderEager || c.HeaderDownload == HeaderLazy,
		"--store.index-header-lazy-download-strategy=%q: give %s or %s", c.HeaderDownload, HeaderEager, HeaderLazy)
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"block-sync-concurrency", int64(c.SyncConcurrency)}, {"store.chunk-window-size", int64(c.ChunkWindowSize)},
		{"store.read-size", int64(c.ReadSize)}, {"store.read-concurrency", int64(c.ReadConcurrency)},
		{"store.read-concurrency-per-block", int64(c.ReadsPerRequest)}, {"debug.series-batch-size", int64(c.SeriesBatch)},
		{"debug.estimated-max-series-size", int64(c.MaxSeriesGuess)}, {"debug.estimated-max-chunk-size", int64(c.MaxChunkGuess)},
		{flagConcurrency, int64(c.MaxConcurrency)},
		{"store.notes.concurrency", int64(c.NotesConcurrency)}, {flagMaxMetadata, int64(c.MaxMetadata)},
		{"store.notes.list-interval", int64(c.NotesListInterval)},
	} {
		check(f.value >= 1, "--%s=%d: give 1 or more", f.name, f.value)
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{flagTouched, c.TouchedLimit}, {flagFetchedSamples, c.FetchedSamples},
		{flagRequestSeries, c.RequestSeries}, {flagRequestSamples, c.RequestSamples}, {flagRequestExemplars, c.RequestExemplars},
	} {
		check(f.value >= 0, "--%s=%d: give 0 for no limit, or more", f.name, f.value)
	}
	return errors.Join(errs...)
}

func (c *Config) fetcher() fetch.Config {
	return fetch.Config{Gap: int64(c.ReadGap), MaxRead: int64(c.ReadSize), PerRequest: c.ReadsPerRequest, Concurrency: c.ReadConcurrency}
}

package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/store/internal/blockreader"
	"github.com/firnline/firnline/pkg/store/internal/fetch"
	"github.com/firnline/firnline/pkg/store/internal/indexheader"
	"github.com/firnline/firnline/pkg/storeapi"
)

// brokenRest is how long a block that could not be prepared is left alone
// before a query tries again; each sync does so too.
const brokenRest = time.Minute

// loaded is a block that queries are answered from.
type loaded struct {
	meta   *block.Meta
	bkt    block.Bucket
	labels labels.Labels       // external
	shard  *block.Shard        // of the group's series; nil: all
	odd    bool                // shard could not be read
	folder string              // local
	header *indexheader.Header // nil when not even the block's files could be found out, as
	reader *blockreader.Block  // is this

	mu struct {
		sync.Mutex
		users   int
		dropped bool
		broken  error // why the block can't be read, nil when it can
		since   time.Time
		lacks   string // the object that was not there; "": none
		asked   bool   // a look into the bucket has seen to that
	}
}

// newLoaded makes a block known. It reads the bucket only where meta.json
// doesn't tell the sizes of its files.
func (s *Store) newLoaded(ctx context.Context, m *block.Meta) (*loaded, error) {
	switch r := m.Resolution(); r {
	case 0, downsample.Resolution5m, downsample.Resolution1h:
	default:
		return nil, fmt.Errorf("resolution of %d ms in meta.json is none of 0, %d and %d", r, downsample.Resolution5m, downsample.Resolution1h)
	}
	files, err := filesOf(ctx, s.bkt, m)
	if err != nil {
		return nil, err
	}
	l := s.describe(m)
	l.header = indexheader.New(indexheader.Source{
		Bucket: s.bkt, Object: files.Index.Name, IndexBytes: files.Index.SizeBytes, Folder: l.folder,
	}, s.log.With("block", m.ULID), s.headerMetrics, s.now)
	l.reader = blockreader.New(m.ULID, files, l.header, s.parts)
	return l, nil
}

// describe returns what meta.json tells of a block.
func (s *Store) describe(m *block.Meta) *loaded {
	ext, _, err := m.Extension()
	return &loaded{meta: m, bkt: s.bkt, labels: m.Labels(), shard: ext.Shard, odd: err != nil, folder: filepath.Join(s.cfg.DataDir, m.ULID.String())}
}

// newBroken makes a block known that can't be read, so that queries don't miss
// it silently.
func (s *Store) newBroken(m *block.Meta, err error) *loaded {
	l := s.describe(m)
	l.note(err, s.now())
	return l
}

// filesOf says which objects a block has and how long they are.
func filesOf(ctx context.Context, bkt block.Bucket, m *block.Meta) (blockreader.Files, error) {
	sizes := map[string]int64{}
	for _, f := range m.Thanos.Files {
		sizes[f.RelPath] = f.SizeBytes
	}
	if !complete(sizes, m.Thanos.SegmentFiles) {
		clear(sizes)
		prefix := block.Name(m.ULID, "")
		err := bkt.ListSizes(ctx, prefix, func(o block.Object) error {
			sizes[strings.TrimPrefix(o.Name, prefix)] = o.SizeBytes
			return nil
		})
		if err != nil {
			return blockreader.Files{}, fmt.Errorf("list: %w", err)
		}
	}
	files := blockreader.Files{MaxSeriesLen: m.Thanos.IndexStats.SeriesMaxSize, MaxChunkLen: m.Thanos.IndexStats.ChunkMaxSize}
	if files.MaxChunkLen > 0 {
		files.MaxChunkLen += chunkOverhead
	}
	if files.MaxSeriesLen > 0 {
		files.MaxSeriesLen += seriesOverhead
	}
	size, ok := sizes[block.IndexFilename]
	if !ok {
		return files, fmt.Errorf("%w: it has no index; mark it for deletion or upload it again: %w", storeapi.ErrCorrupt,
			&fetch.GoneError{Object: block.Name(m.ULID, block.IndexFilename)})
	}
	files.Index = fetch.Object{Name: block.Name(m.ULID, block.IndexFilename), SizeBytes: size}
	for rel, size := range sizes {
		if path.Dir(rel) == block.ChunksDirname {
			files.Segments = append(files.Segments, fetch.Object{Name: block.Name(m.ULID, rel), SizeBytes: size})
		}
	}
	slices.SortFunc(files.Segments, func(a, b fetch.Object) int { return strings.Compare(a.Name, b.Name) })
	for i, segment := range files.Segments { // chunks refer to them by number
		if want := block.Name(m.ULID, path.Join(block.ChunksDirname, fmt.Sprintf("%06d", i+1))); segment.Name > want {
			return files, &fetch.GoneError{Object: want}
		}
	}
	return files, nil
}

// Writers differ in whether the longest entry in index_stats includes its
// length and checksum; these are enough for either.
const (
	chunkOverhead  = 5 + 1 + 4
	seriesOverhead = 5 + 4
)

// complete tells whether sizes has the index and all segment files.
func complete(sizes map[string]int64, segments []string) bool {
	if sizes[block.IndexFilename] <= 0 {
		return false
	}
	for _, s := range segments {
		if sizes[path.Join(block.ChunksDirname, s)] <= 0 {
			return false
		}
	}
	return true
}

// prepare makes sure that an object that was not there is back and that the
// block's index header is on disk, and takes note of whether that went well.
func (l *loaded) prepare(ctx context.Context, now time.Time) error {
	err := l.complete(ctx)
	if err == nil {
		err = l.header.Ensure(ctx)
	}
	if ctx.Err() != nil {
		return err
	}
	l.note(err, now)
	return err
}

// complete asks for the object that was not there, by one request.
func (l *loaded) complete(ctx context.Context) error {
	l.mu.Lock()
	broken, object := l.mu.broken, l.mu.lacks
	l.mu.Unlock()
	if object == "" {
		return nil
	}
	there, err := l.bkt.Exists(ctx, object)
	if err != nil || !there {
		return broken
	}
	return nil
}

// note takes note of why the block can't be read, or that it can.
func (l *loaded) note(err error, now time.Time) {
	object := ""
	if gone := (*fetch.GoneError)(nil); errors.As(err, &gone) {
		object = gone.Object
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.lacks == "" {
		l.mu.asked = false
	}
	l.mu.broken, l.mu.since, l.mu.lacks = err, now, object
}

// lacks tells whether an object of the block was not there, and whether a look
// into the bucket has seen to that since.
func (l *loaded) lacks() (missing, asked bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.lacks != "", l.mu.asked
}

// setAsked notes that a look has seen to a block that lacks an object.
func (l *loaded) setAsked() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.asked = true
}

// broken returns why the block can't be read, or nil.
func (l *loaded) broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.broken
}

// usable returns nil when a query may read the block. One that was found broken
// some time ago is tried again, by one query at a time.
func (l *loaded) usable(ctx context.Context, now time.Time) error {
	l.mu.Lock()
	err := l.mu.broken
	try := err != nil && l.header != nil && now.Sub(l.mu.since) >= brokenRest
	if try {
		l.mu.since = now
	}
	l.mu.Unlock()
	if try {
		return l.prepare(ctx, now)
	}
	return err
}

// acquire keeps the block from being closed until release. It is false once the
// block has been dropped.
func (l *loaded) acquire() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.mu.dropped {
		l.mu.users++
	}
	return !l.mu.dropped
}

// release ends the use of a block; the last user of a dropped one closes it.
func (l *loaded) release(log *slog.Logger) {
	l.mu.Lock()
	l.mu.users--
	last := l.mu.dropped && l.mu.users == 0
	l.mu.Unlock()
	if last {
		l.close(log)
	}
}

// drop takes the block out of use; it is closed now or by its last user.
func (l *loaded) drop(log *slog.Logger) {
	l.mu.Lock()
	idle := !l.mu.dropped && l.mu.users == 0
	l.mu.dropped = true
	l.mu.Unlock()
	if idle {
		l.close(log)
	}
}

// unloadIdle unloads the index header when no query has used it since before.
func (l *loaded) unloadIdle(before time.Time) {
	if l.header != nil {
		l.header.UnloadIdle(before)
	}
}

// close lets go of everything and removes the local folder.
func (l *loaded) close(log *slog.Logger) {
	if l.header != nil {
		l.header.Close()
	}
	if err := os.RemoveAll(l.folder); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warn("local folder of a dropped block stays", "block", l.meta.ULID, "err", err)
	}
}

// candidate is what the choice of blocks looks at.
func (l *loaded) candidate() candidate {
	return candidate{
		id: l.meta.ULID, mint: l.meta.MinTime, maxt: l.meta.MaxTime, resolution: l.meta.Resolution(), shard: l.shard, odd: l.odd,
	}
}

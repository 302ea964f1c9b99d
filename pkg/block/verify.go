package block

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/firnline/firnline/pkg/block/layout"
)

// Content is what Verify has found in a local block, or what its writer knows of it.
type Content struct {
	Files        []File   // segments and index with their sizes, sorted by path
	Sums         []uint32 // CRC-32C of each of Files; only from its writer
	SegmentFiles []string // names under chunks/, sorted
	IndexStats   IndexStats
	Series       uint64
	Chunks       uint64
}

// SizeBytes sums the files.
func (c *Content) SizeBytes() int64 {
	var sum int64
	for _, f := range c.Files {
		sum += f.SizeBytes
	}
	return sum
}

// Verify reads a local block once, from front to back, and checks all that a
// reader will rely on: the index opens, its table of contents, symbols, postings
// and series have the checksums they say, series are sorted, and each of their
// chunks lies in a segment and has its checksum. Memory does not grow with the
// block: the index is mapped and segments are read through a window.
//
// Chunks of a series that overlap or are out of order are let through, since a
// compactor can mend them. The error wraps ErrCorrupt, names block, file and
// offset, or comes from the disk.
func Verify(ctx context.Context, dir string) (*Content, error) {
	c, err := listContent(dir)
	if err != nil {
		return nil, err
	}
	if err := verifyIndex(ctx, dir, c); err != nil {
		return nil, fmt.Errorf("block %s: %w", filepath.Base(dir), err)
	}
	return c, nil
}

// listContent finds segments and index. Everything else in the folder, such as
// tombstones, stays local.
func listContent(dir string) (_ *Content, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("block %s: %w", filepath.Base(dir), err)
		}
	}()
	entries, err := os.ReadDir(filepath.Join(dir, ChunksDirname))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	c := &Content{}
	for _, e := range entries { // sorted by name
		n, err := strconv.ParseUint(e.Name(), 10, 32)
		if err != nil || e.IsDir() {
			continue
		}
		if want := uint64(len(c.SegmentFiles) + 1); n != want {
			return nil, fmt.Errorf("chunks/%06d: %w: segment is missing; restore it or move the block away", want, ErrCorrupt)
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		c.SegmentFiles = append(c.SegmentFiles, e.Name())
		c.Files = append(c.Files, File{RelPath: ChunksDirname + "/" + e.Name(), SizeBytes: info.Size()})
	}
	info, err := os.Stat(filepath.Join(dir, IndexFilename))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: it has no index; restore the file or move the block away", ErrCorrupt)
	}
	if err != nil {
		return nil, err
	}
	c.Files = append(c.Files, File{RelPath: IndexFilename, SizeBytes: info.Size()})
	return c, nil
}

// verifyIndex walks index and chunks and fills in c's statistics.
func verifyIndex(ctx context.Context, dir string, c *Content) (err error) {
	file, err := fileutil.OpenMmapFile(filepath.Join(dir, IndexFilename))
	if err != nil {
		return corruptIndex(err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	segments, err := openSegments(dir, c.SegmentFiles)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, segments.Close()) }()
	// The TSDB's readers trust offsets that carry a good checksum and index out
	// of range where those are wrong all the same.
	defer func() {
		if p := recover(); p != nil {
			err = corruptIndex(fmt.Errorf("%v", p))
		}
	}()
	w := indexWalk{data: mapped(file.Bytes()), segments: segments, content: c, table: crc32.MakeTable(crc32.Castagnoli)}
	return w.run(ctx)
}

func corruptIndex(err error) error {
	return fmt.Errorf("index: %w: %w; restore the block or move it away", ErrCorrupt, err)
}

// mapped is the index file as the TSDB's readers want it.
type mapped []byte

func (m mapped) Len() int                    { return len(m) }
func (m mapped) Range(start, end int) []byte { return m[start:end] }

// indexWalk is one pass over an index.
type indexWalk struct {
	data     mapped
	segments *segmentSet
	content  *Content
	table    *crc32.Table
}

func (w *indexWalk) run(ctx context.Context) error {
	r, err := index.NewReader(w.data, index.DecodePostingsRaw)
	if err != nil {
		return corruptIndex(err)
	}
	if err := w.postings(ctx); err != nil {
		return err
	}
	name, value := index.AllPostingsKey()
	all, err := r.Postings(ctx, name, value)
	if err != nil {
		return corruptIndex(err)
	}
	return w.series(ctx, r, all)
}

// postings checks the checksum of every postings list.
func (w *indexWalk) postings(ctx context.Context) error {
	toc, err := index.NewTOCFromByteSlice(w.data)
	if err != nil {
		return corruptIndex(err)
	}
	n := 0
	err = index.ReadPostingsOffsetTable(w.data, toc.PostingsTable, func(name, value []byte, off uint64, _ int) error {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		d := encoding.NewDecbufAt(w.data, int(off), w.table)
		if d.Err() != nil {
			return fmt.Errorf("offset %d: postings of %s=%q: %w", off, name, value, d.Err())
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		return corruptIndex(err)
	}
	return err
}

// series reads each series and, through its references, each chunk.
func (w *indexWalk) series(ctx context.Context, r *index.Reader, all index.Postings) error {
	var (
		builder = labels.NewScratchBuilder(16)
		prev    labels.Labels
		metas   []chunks.Meta
	)
	for all.Next() {
		if w.content.Series%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		ref := all.At()
		offset := w.offset(r, ref)
		if err := r.Series(ref, &builder, &metas); err != nil {
			return corruptIndex(fmt.Errorf("offset %d: series: %w", offset, err))
		}
		lset := builder.Labels()
		if w.content.Series > 0 && labels.Compare(prev, lset) >= 0 {
			return corruptIndex(fmt.Errorf("offset %d: series %s is not behind %s", offset, lset, prev))
		}
		prev = lset
		w.content.Series++
		w.content.IndexStats.SeriesMaxSize = max(w.content.IndexStats.SeriesMaxSize, w.entrySize(offset))
		for _, m := range metas {
			size, err := w.segments.check(m)
			if err != nil {
				return err
			}
			w.content.Chunks++
			w.content.IndexStats.ChunkMaxSize = max(w.content.IndexStats.ChunkMaxSize, size)
		}
	}
	if all.Err() != nil {
		return corruptIndex(all.Err())
	}
	return nil
}

// offset turns a reference into an offset: since version 2 it counts 16 bytes.
func (*indexWalk) offset(r *index.Reader, ref storage.SeriesRef) int {
	if r.Version() == index.FormatV1 {
		return int(ref)
	}
	return int(ref) * layout.RefUnit
}

// entrySize is the length in bytes of a series entry that Series could read:
// length, content and checksum.
func (w *indexWalk) entrySize(offset int) int64 {
	length, n := binary.Uvarint(w.data[offset:min(offset+binary.MaxVarintLen32, len(w.data))])
	return int64(n) + int64(length) + crc32.Size
}

// segmentSet are the open segment files of a block.
type segmentSet struct {
	files []*os.File
	read  []window
}

// segmentWindow is how much of a segment is read at once, in bytes. References
// ascend, so a segment is read about once.
const segmentWindow = 256 << 10

func openSegments(dir string, names []string) (_ *segmentSet, err error) {
	s := &segmentSet{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, name := range names {
		f, err := os.Open(filepath.Join(dir, ChunksDirname, name))
		if err != nil {
			return nil, err
		}
		s.files = append(s.files, f)
		s.read = append(s.read, window{file: f})
		var head [layout.SegmentHeadLen]byte
		if _, err := f.ReadAt(head[:], 0); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		version, err := layout.SegmentHead(head[:])
		if err != nil {
			return nil, fmt.Errorf("chunks/%s: %w: %w; restore the block or move it away", name, ErrCorrupt, err)
		}
		if version != layout.SegmentVersion {
			return nil, fmt.Errorf("chunks/%s: %w %d, this program reads %d; upgrade it", name, ErrUnknownVersion, version, layout.SegmentVersion)
		}
	}
	return s, nil
}

// check reads a chunk, compares its checksum and returns its length in the segment.
func (s *segmentSet) check(m chunks.Meta) (int64, error) {
	segment, start := chunks.BlockChunkRef(m.Ref).Unpack()
	fail := func(format string, args ...any) error {
		return fmt.Errorf("chunks/%06d: offset %d: %w: %s; restore the block or move it away", segment+1, start, ErrCorrupt, fmt.Sprintf(format, args...))
	}
	if segment >= len(s.files) {
		return 0, fail("the index refers to this segment and it is missing")
	}
	if m.MinTime > m.MaxTime {
		return 0, fail("its times are from %d to %d", m.MinTime, m.MaxTime)
	}
	w := &s.read[segment]
	content, size, bad := []byte(nil), int64(layout.HeadBytes), error(nil)
	for content == nil && bad == nil {
		b, err := w.at(int64(start), int(size))
		if err != nil {
			return 0, err
		}
		short := int64(len(b)) < size // the segment ends
		content, size, bad = layout.ChunkRecord.Content(b)
		if content == nil && bad == nil && short {
			bad = fmt.Errorf("the chunk has %d bytes of %d", len(b), size)
		}
	}
	if bad != nil {
		return 0, fail("%v", bad)
	}
	return size, nil
}

// Close closes the files.
func (s *segmentSet) Close() error {
	var err error
	for _, f := range s.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// window reads a file through a buffer that moves forward.
type window struct {
	file  *os.File
	start int64 // offset of buf[0]
	buf   []byte
}

// at returns up to n bytes at offset off, fewer only at the end of the file.
// They are valid until the next call.
func (w *window) at(off int64, n int) ([]byte, error) {
	if off >= w.start && off+int64(n) <= w.start+int64(len(w.buf)) {
		return w.buf[off-w.start:][:n], nil
	}
	size := max(n, segmentWindow)
	if cap(w.buf) < size {
		w.buf = make([]byte, size)
	}
	got, err := w.file.ReadAt(w.buf[:size], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	w.start, w.buf = off, w.buf[:got]
	return w.buf[:min(n, got)], nil
}

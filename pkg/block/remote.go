package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/firnline/firnline/pkg/block/layout"
)

// Remote are the objects of a block in a bucket that hold its data, to be read
// in ranges. Its bytes have their checksums compared by who reads them; what
// can't be right is read a second time, since it may have been the way, before
// an error wraps ErrCorrupt. Requests are retried by the bucket, not here.
type Remote struct {
	Index    RangeReader
	Segments []RangeReader // by number, from 1
}

// OpenRemote finds a block's objects and their sizes by its meta or, where the
// writer of that didn't give them, by a listing. Each request, and how many
// bytes came of it, is told to told where that isn't nil.
func OpenRemote(ctx context.Context, bkt Bucket, m *Meta, told func(bytes int)) (*Remote, error) {
	sizes, ok := m.fileSizes()
	if !ok {
		var err error
		if sizes, err = listSizes(ctx, bkt, m.ULID); err != nil {
			return nil, err
		}
		if told != nil {
			told(0)
		}
	}
	return newRemote(sizes, func(rel string) RangeReader {
		return RangeReader{Bucket: bkt, Object: Name(m.ULID, rel), SizeBytes: sizes[rel], Told: told}
	})
}

func newRemote(sizes map[string]int64, open func(rel string) RangeReader) (*Remote, error) {
	find := func(rel string) (RangeReader, error) {
		r := open(rel)
		if _, ok := sizes[rel]; !ok {
			return r, r.Corrupt(0, errors.New("the object is missing"))
		}
		return r, nil
	}
	var (
		r   = &Remote{}
		err error
	)
	if r.Index, err = find(IndexFilename); err != nil {
		return nil, err
	}
	for i := range countSegments(sizes) {
		segment, err := find(segmentName(i))
		if err != nil {
			return nil, err
		}
		r.Segments = append(r.Segments, segment)
	}
	return r, nil
}

// fileSizes reads the sizes of a block's files off its meta; ok is false where
// they are not there.
func (m *Meta) fileSizes() (sizes map[string]int64, ok bool) {
	sizes = map[string]int64{}
	for _, f := range m.Thanos.Files {
		sizes[f.RelPath] = f.SizeBytes
	}
	return sizes, sizes[IndexFilename] > 0 && countSegments(sizes) >= len(m.Thanos.SegmentFiles)
}

// Extent is how large a block's files are.
type Extent struct {
	IndexBytes   int64
	SegmentBytes int64 // of the longest
	Segments     int
}

// Extent returns the sizes of the block's files; ok is false where the meta does
// not have them.
func (m *Meta) Extent() (e Extent, ok bool) {
	sizes, ok := m.fileSizes()
	for rel, size := range sizes {
		if isSegment(rel) {
			e.SegmentBytes = max(e.SegmentBytes, size)
			e.Segments++
		}
	}
	e.IndexBytes = sizes[IndexFilename]
	return e, ok
}

func segmentName(i int) string { return fmt.Sprintf("%s/%06d", ChunksDirname, i+1) }

// isSegment tells a segment from what else may lie in its folder, such as the
// folder's own marker.
func isSegment(rel string) bool {
	number, ok := strings.CutPrefix(rel, ChunksDirname+"/")
	_, err := strconv.ParseUint(number, 10, 32)
	return ok && err == nil
}

func countSegments(sizes map[string]int64) int {
	n := 0
	for rel := range sizes {
		if isSegment(rel) {
			n++
		}
	}
	return n
}

// TOC reads both ends of the index.
func (r *Remote) TOC(ctx context.Context) (toc layout.TOC, err error) {
	x := &r.Index
	at := x.SizeBytes - layout.TOCLen
	if at < layout.IndexHeadLen {
		return toc, x.Corrupt(0, fmt.Errorf("an index of %d bytes is too short", x.SizeBytes))
	}
	err = x.Checked(ctx, at, layout.TOCLen, func(b []byte) (err error) {
		toc, err = layout.ParseTOC(b, x.SizeBytes)
		return err
	})
	if err != nil {
		return toc, err
	}
	return toc, x.Checked(ctx, 0, layout.IndexHeadLen, func(b []byte) error {
		version, err := layout.IndexHead(b)
		if err == nil && version != layout.IndexVersion {
			err = fmt.Errorf("%w %d of the index, this program reads %d: rewrite the block with a Prometheus of version 2.1 or later", ErrUnknownVersion, version, layout.IndexVersion)
		}
		return err
	})
}

// CheckSegment looks at the first bytes of a segment.
func (r *RangeReader) CheckSegment(ctx context.Context) error {
	return r.Checked(ctx, 0, min(layout.SegmentHeadLen, r.SizeBytes), func(b []byte) error {
		version, err := layout.SegmentHead(b)
		if err == nil && version != layout.SegmentVersion {
			err = fmt.Errorf("%w %d of a segment, this program reads %d; upgrade it", ErrUnknownVersion, version, layout.SegmentVersion)
		}
		return err
	})
}

// RangeReader reads ranges of one object.
type RangeReader struct {
	Bucket    Bucket
	Object    string
	SizeBytes int64
	Told      func(bytes int) // of each request, where not nil
	// Long is held while a record is read that is longer than any should be, where not nil: of
	// readers side by side one takes memory for such.
	Long sync.Locker
}

// Read fills b with the bytes at offset at. A body that is too short is asked
// for once more; then the object is corrupt if it has another size than it
// should, and else the bucket is to blame, which is no reason to give a block up.
func (r *RangeReader) Read(ctx context.Context, at int64, b []byte) error {
	n, err := r.readOnce(ctx, at, b)
	if err == nil && n < len(b) {
		n, err = r.readOnce(ctx, at, b)
	}
	if err == nil && n < len(b) {
		err = r.explain(ctx, at+int64(n), fmt.Errorf("%d of %d bytes came, twice", n, len(b)))
	}
	return err
}

// readOnce returns how many bytes came; fewer than asked for is no error here.
func (r *RangeReader) readOnce(ctx context.Context, at int64, b []byte) (n int, err error) {
	if r.Told != nil {
		defer func() { r.Told(n) }()
	}
	body, err := r.Bucket.GetRange(ctx, r.Object, at, int64(len(b)))
	if err != nil {
		return 0, r.explain(ctx, at, err)
	}
	defer func() { _ = body.Close() }() // read-only: nothing to lose
	n, err = io.ReadFull(body, b)
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return n, nil
	}
	return n, fmt.Errorf("object %s: offset %d: %w", r.Object, at+int64(n), err)
}

// explain gives a failed read its context. A range beyond the end of an object,
// which providers tell in different ways, means that the object has shrunk.
func (r *RangeReader) explain(ctx context.Context, at int64, err error) error {
	if ctx.Err() == nil && !r.Bucket.IsObjNotFoundErr(err) {
		if attrs, aerr := r.Bucket.Attributes(ctx, r.Object); aerr == nil && attrs.Size != r.SizeBytes {
			return r.Corrupt(at, fmt.Errorf("the object has %d bytes instead of %d: %w", attrs.Size, r.SizeBytes, err))
		}
	}
	return fmt.Errorf("object %s: offset %d: %w", r.Object, at, err)
}

// Corrupt says what is wrong with the object's bytes, and where.
func (r *RangeReader) Corrupt(at int64, err error) error {
	return fmt.Errorf("object %s: offset %d: %w: %w", r.Object, at, ErrCorrupt, err)
}

// Checked reads n bytes and hands them to check; when that doesn't like them
// they are read once more. An error of check's that wraps ErrUnknownVersion
// stays what it is, any other means that the object is corrupt.
func (r *RangeReader) Checked(ctx context.Context, at, n int64, check func([]byte) error) error {
	b := make([]byte, n)
	var bad error
	for range 2 {
		if err := r.Read(ctx, at, b); err != nil {
			return err
		}
		if bad = check(b); bad == nil {
			return nil
		}
	}
	if errors.Is(bad, ErrUnknownVersion) {
		return fmt.Errorf("object %s: %w", r.Object, bad)
	}
	return r.Corrupt(at, bad)
}

// Record reads the one record that begins at place.Start, of some guess bytes,
// and returns its content. It must end by place.End.
func (r *RangeReader) Record(ctx context.Context, place layout.Span, kind layout.Frame, guess int64) ([]byte, error) {
	want := min(max(guess, layout.HeadBytes), place.Len())
	var bad error
	alone := r.Long == nil
	for tries := 0; tries < 2; {
		if want > max(guess, verifyRecord) && !alone {
			r.Long.Lock()
			defer r.Long.Unlock()
			alone = true
		}
		b := make([]byte, want)
		if err := r.Read(ctx, place.Start, b); err != nil {
			return nil, err
		}
		content, size, err := kind.Content(b)
		switch {
		case content != nil:
			return content, nil
		case err == nil && size > want && size <= place.Len():
			want = size // the guess was short
			continue
		case err == nil:
			err = layout.ErrLength
		}
		bad = err
		tries++
	}
	return nil, r.Corrupt(place.Start, bad)
}

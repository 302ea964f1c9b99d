package input

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/layout"
)

// files are the objects of a block that are read.
type files struct {
	index    object
	segments []object // by number, from 1
	counts   counts
}

type counts struct{ requests, bytes atomic.Int64 }

func (f *files) reads() Reads {
	return Reads{Requests: f.counts.requests.Load(), Bytes: f.counts.bytes.Load()}
}

// object is one object of known size.
type object struct {
	bkt    block.Bucket
	name   string
	size   int64
	counts *counts
}

// findFiles learns the block's objects and their sizes from its meta or, where
// its writer didn't give them, by a listing.
func findFiles(ctx context.Context, bkt block.Bucket, m *block.Meta) (*files, error) {
	f := &files{}
	sizes, ok := sizesOf(m)
	if !ok {
		f.counts.requests.Add(1)
		err := bkt.ListSizes(ctx, block.Name(m.ULID, ""), func(o block.Object) error {
			if id, rel, ok := block.SplitName(o.Name); ok && id == m.ULID {
				sizes[rel] = o.SizeBytes
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list: %w", err)
		}
	}
	find := func(rel string) (object, error) {
		o := object{bkt: bkt, name: block.Name(m.ULID, rel), size: sizes[rel], counts: &f.counts}
		if _, ok := sizes[rel]; !ok {
			return o, o.corrupt(0, errors.New("the object is missing"))
		}
		return o, nil
	}
	var err error
	if f.index, err = find(block.IndexFilename); err != nil {
		return nil, err
	}
	for i := range countSegments(sizes) {
		segment, err := find(segmentName(i))
		if err != nil {
			return nil, err
		}
		f.segments = append(f.segments, segment)
	}
	return f, nil
}

// sizesOf reads the sizes of a block's files off its meta; ok is false where
// they are not there.
func sizesOf(m *block.Meta) (sizes map[string]int64, ok bool) {
	sizes = map[string]int64{}
	for _, f := range m.Thanos.Files {
		sizes[f.RelPath] = f.SizeBytes
	}
	ok = sizes[block.IndexFilename] > 0 && countSegments(sizes) >= len(m.Thanos.SegmentFiles)
	return sizes, ok
}

const segmentPrefix = block.ChunksDirname + "/"

func segmentName(i int) string { return fmt.Sprintf("%s%06d", segmentPrefix, i+1) }

// isSegment tells a segment from what else may lie in its folder, such as the
// folder's own marker.
func isSegment(rel string) bool {
	number, ok := strings.CutPrefix(rel, segmentPrefix)
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

func longestSegment(sizes map[string]int64) int64 {
	longest := int64(0)
	for rel, size := range sizes {
		if isSegment(rel) {
			longest = max(longest, size)
		}
	}
	return longest
}

// readTOC reads the ends of the index.
func (f *files) readTOC(ctx context.Context) (toc layout.TOC, err error) {
	x := &f.index
	at := x.size - layout.TOCLen
	if at < layout.IndexHeadLen {
		return toc, x.corrupt(0, fmt.Errorf("an index of %d bytes is too short", x.size))
	}
	err = x.readChecked(ctx, at, layout.TOCLen, func(b []byte) (err error) {
		toc, err = layout.ParseTOC(b, x.size)
		return err
	})
	if err != nil {
		return toc, err
	}
	var version byte
	err = x.readChecked(ctx, 0, layout.IndexHeadLen, func(b []byte) (err error) {
		version, err = layout.IndexHead(b)
		if err == nil && version != layout.IndexVersion {
			return fmt.Errorf("%w %d of the index, only %d can be compacted: rewrite the block with a Prometheus of version 2.1 or later", block.ErrUnknownVersion, version, layout.IndexVersion)
		}
		return err
	})
	return toc, err
}

// readChecked reads a few bytes and hands them to check; when that doesn't like
// them they are read once more.
func (o *object) readChecked(ctx context.Context, at, n int64, check func([]byte) error) error {
	b := make([]byte, n)
	var bad error
	for range 2 {
		if err := o.read(ctx, at, b); err != nil {
			return err
		}
		if bad = check(b); bad == nil {
			return nil
		}
	}
	if errors.Is(bad, block.ErrUnknownVersion) {
		return fmt.Errorf("object %s: %w", o.name, bad)
	}
	return o.corrupt(at, bad)
}

// read fills b with the bytes at offset at. A body that is too short is asked
// for once more, and then the object is corrupt.
func (o *object) read(ctx context.Context, at int64, b []byte) error {
	n, err := o.readOnce(ctx, at, b)
	if err == nil && n < len(b) {
		n, err = o.readOnce(ctx, at, b)
	}
	if err == nil && n < len(b) {
		err = o.corrupt(at+int64(n), fmt.Errorf("the object ends here instead of at %d", o.size))
	}
	return err
}

// readOnce returns how many bytes came; fewer than asked for is no error here.
func (o *object) readOnce(ctx context.Context, at int64, b []byte) (n int, err error) {
	o.counts.requests.Add(1)
	body, err := o.bkt.GetRange(ctx, o.name, at, int64(len(b)))
	if err != nil {
		return 0, o.explain(ctx, at, err)
	}
	defer func() { _ = body.Close() }() // read-only: nothing to lose
	n, err = io.ReadFull(body, b)
	o.counts.bytes.Add(int64(n))
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return n, nil
	}
	return n, fmt.Errorf("object %s: offset %d: %w", o.name, at+int64(n), err)
}

// explain gives a failed read its context. A range beyond the end of an object,
// which providers tell in different ways, means that the object has shrunk.
func (o *object) explain(ctx context.Context, at int64, err error) error {
	if ctx.Err() == nil && !o.bkt.IsObjNotFoundErr(err) {
		if attrs, aerr := o.bkt.Attributes(ctx, o.name); aerr == nil && attrs.Size != o.size {
			return o.corrupt(at, fmt.Errorf("the object has %d bytes instead of %d: %w", attrs.Size, o.size, err))
		}
	}
	return fmt.Errorf("object %s: offset %d: %w", o.name, at, err)
}

// corrupt says what is wrong with the object, and where.
func (o *object) corrupt(at int64, err error) error {
	return fmt.Errorf("object %s: offset %d: %w: %w", o.name, at, block.ErrCorrupt, err)
}

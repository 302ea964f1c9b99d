package indexheader

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"strings"

	"github.com/thanos-io/objstore"

	"github.com/firnline/firnline/pkg/block/layout"
	"github.com/firnline/firnline/pkg/store/internal/fetch"
	"github.com/firnline/firnline/pkg/storeapi"
)

// source is the index that a header is built from.
type source struct {
	bkt  objstore.BucketReader
	name string // of the object
	size int64
}

// build reads the table of contents, the symbols and the postings offset table
// of an index, one ranged GET each, and writes the header to w as it goes. What
// can't be right is storeapi.ErrCorrupt.
func build(ctx context.Context, src source, w io.Writer) error {
	toc, err := readTOC(ctx, src)
	if err != nil {
		return err
	}
	b := &builder{w: bufio.NewWriterSize(w, 64<<10)}
	head := encodeHead(src.size)
	b.write(head)
	b.dir.series = fetch.Span(toc.Series)
	if err := b.symbols(ctx, src, toc); err != nil {
		return err
	}
	if err := b.postings(ctx, src, toc); err != nil {
		return err
	}
	at, dir := b.at, b.dir.encode()
	b.write(dir)
	b.write(encodeTrailer(head, at, dir))
	if b.err != nil {
		return fmt.Errorf("write index header: %w", b.err)
	}
	if err := b.w.Flush(); err != nil {
		return fmt.Errorf("write index header: %w", err)
	}
	return nil
}

func (s source) corrupt(at int64, format string, args ...any) error {
	return fmt.Errorf("%w: object %s at offset %d: %s", storeapi.ErrCorrupt, s.name, at, fmt.Sprintf(format, args...))
}

// open starts a ranged GET.
func (s source) open(ctx context.Context, at, n int64) (io.ReadCloser, error) {
	r, err := s.bkt.GetRange(ctx, s.name, at, n)
	if err != nil {
		return nil, fetch.Explain(ctx, s.bkt, fetch.Object{Name: s.name, SizeBytes: s.size}, at, err)
	}
	return r, nil
}

func readTOC(ctx context.Context, src source) (toc layout.TOC, err error) {
	if src.size < layout.IndexHeadLen+layout.TOCLen {
		return toc, src.corrupt(src.size, "an index of %d bytes is too short", src.size)
	}
	at := src.size - layout.TOCLen
	body, err := src.open(ctx, at, layout.TOCLen)
	if err != nil {
		return toc, err
	}
	defer func() { _ = body.Close() }() // read-only: nothing to lose
	b := make([]byte, layout.TOCLen)
	if _, err := io.ReadFull(body, b); err != nil {
		return toc, src.cut(at, err)
	}
	if toc, err = layout.ParseTOC(b, src.size); err != nil {
		return toc, src.corrupt(at, "%v", err)
	}
	return toc, nil
}

// cut tells an answer that ended too early from one that broke.
func (s source) cut(at int64, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return s.corrupt(at, "cut short")
	}
	return fmt.Errorf("read %s at offset %d: %w", s.name, at, err)
}

// section reads one length-prefixed, checksummed section of an index as it streams in.
type section struct {
	src  source
	r    *bufio.Reader
	sum  hash.Hash32
	left int64 // bytes of content not read yet
	at   int64 // offset in the index
	err  error
}

// openSection starts reading at a section's length. The section must end by limit.
func openSection(src source, body io.Reader, at, limit int64) (*section, error) {
	s := &section{src: src, r: bufio.NewReaderSize(body, 64<<10), at: at, left: 4}
	b := s.take(4)
	if s.err != nil {
		return nil, s.err
	}
	s.left = int64(binary.BigEndian.Uint32(b))
	if s.at+s.left+4 > limit {
		return nil, src.corrupt(at, "section of %d bytes is longer than its place", s.left)
	}
	s.sum = crc32.New(crc32.MakeTable(crc32.Castagnoli))
	return s, nil
}

// take reads n bytes of content. After an error all reads return zeroes.
func (s *section) take(n int64) []byte {
	if s.err == nil && n > s.left {
		s.err = s.src.corrupt(s.at, "entry longer than its section")
	}
	if s.err != nil {
		return make([]byte, min(n, 8))
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(s.r, b); err != nil {
		s.err = s.src.cut(s.at, err)
	}
	if s.sum != nil {
		_, _ = s.sum.Write(b) // a hash never fails
	}
	s.left, s.at = s.left-n, s.at+n
	return b
}

func (s *section) uvarint() uint64 {
	if s.err != nil {
		return 0
	}
	b, err := s.r.Peek(int(min(binary.MaxVarintLen64, s.left)))
	v, n := binary.Uvarint(b)
	switch {
	case n > 0:
		_, _ = s.sum.Write(b[:n]) // a hash never fails
		_, _ = s.r.Discard(n)     // nor does this: the bytes are there
		s.left, s.at = s.left-int64(n), s.at+int64(n)
		return v
	case err != nil:
		s.err = s.src.cut(s.at, err)
	default:
		s.err = s.src.corrupt(s.at, "broken number")
	}
	return 0
}

func (s *section) string() string {
	n := s.uvarint()
	if s.err == nil && n > uint64(s.left) {
		s.err = s.src.corrupt(s.at, "string longer than its section")
	}
	if s.err != nil {
		return ""
	}
	return string(s.take(int64(n)))
}

// close reads the checksum behind the content and compares.
func (s *section) close() error {
	if s.err == nil && s.left != 0 {
		s.err = s.src.corrupt(s.at, "%d bytes behind the last entry", s.left)
	}
	if s.err != nil {
		return s.err
	}
	want := s.sum.Sum32()
	s.left = 4
	if got := binary.BigEndian.Uint32(s.take(4)); s.err == nil && got != want {
		s.err = s.src.corrupt(s.at, "section checksum mismatch")
	}
	return s.err
}

// builder writes the header file and collects its directory.
type builder struct {
	w     *bufio.Writer
	at    int64
	err   error
	dir   directory
	group []byte
}

func (b *builder) write(p []byte) {
	if b.err == nil {
		_, b.err = b.w.Write(p)
	}
	b.at += int64(len(p))
}

// flush ends the group at hand; it returns the offset behind it.
func (b *builder) flush() int64 {
	b.write(binary.BigEndian.AppendUint32(b.group, crcOf(b.group)))
	b.group = b.group[:0]
	return b.at
}

func (b *builder) addString(s string) {
	b.group = append(binary.AppendUvarint(b.group, uint64(len(s))), s...)
}

func (b *builder) symbols(ctx context.Context, src source, toc layout.TOC) error {
	at := toc.Symbols
	body, err := src.open(ctx, 0, at.End)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // read-only: nothing to lose
	if at.Start > 1<<10 {
		return src.corrupt(0, "symbols start at offset %d", at.Start)
	}
	head := make([]byte, at.Start)
	if _, err := io.ReadFull(body, head); err != nil {
		return src.cut(0, err)
	}
	version, err := layout.IndexHead(head)
	if err != nil {
		return src.corrupt(0, "%v", err)
	}
	if version != layout.IndexVersion {
		return fmt.Errorf("object %s: index version %d is not supported, only %d: rewrite the block with a Prometheus of version 2.1 or later", src.name, version, layout.IndexVersion)
	}
	s, err := openSection(src, body, at.Start, at.End)
	if err != nil {
		return err
	}
	count := int(binary.BigEndian.Uint32(s.take(4)))
	b.dir.groups = append(b.dir.groups, b.at)
	for b.dir.symbols = 0; b.dir.symbols < count && s.err == nil; {
		b.addString(s.string())
		b.dir.symbols++
		if b.dir.symbols%groupSize == 0 || b.dir.symbols == count {
			b.dir.groups = append(b.dir.groups, b.flush())
		}
	}
	return s.close()
}

// tableEntry is an entry of the postings offset table.
type tableEntry struct {
	name, value string
	offset      uint64
}

func (b *builder) postings(ctx context.Context, src source, toc layout.TOC) error {
	table, lists := toc.PostingsTable, toc.Postings
	body, err := src.open(ctx, table.Start, table.Len())
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // read-only: nothing to lose
	s, err := openSection(src, body, table.Start, table.End)
	if err != nil {
		return err
	}
	var last tableEntry
	count := int(binary.BigEndian.Uint32(s.take(4)))
	for i := 0; i < count && s.err == nil; i++ {
		at := s.at
		if keys := s.uvarint(); s.err == nil && keys != 2 {
			return src.corrupt(at, "%d keys in an entry of the postings offset table", keys)
		}
		e := tableEntry{name: s.string(), value: s.string(), offset: s.uvarint()}
		if s.err != nil {
			break
		}
		if e.offset < uint64(lists.Start) || e.offset >= uint64(lists.End) {
			return src.corrupt(at, "postings list outside its section")
		}
		if i > 0 {
			if e.offset <= last.offset || e.name < last.name || e.name == last.name && e.value <= last.value {
				return src.corrupt(at, "postings offset table out of order")
			}
			b.addPosting(last, e.offset)
		}
		last = e
	}
	if err := s.close(); err != nil {
		return err
	}
	if count > 0 {
		b.addPosting(last, uint64(lists.End))
		b.endGroup()
	}
	return nil
}

// addPosting writes an entry whose list ends at end.
func (b *builder) addPosting(e tableEntry, end uint64) {
	n := len(b.dir.names)
	if n == 0 || b.dir.names[n-1].name != e.name {
		b.endGroup()
		b.dir.names = append(b.dir.names, nameEntry{name: strings.Clone(e.name), groups: []int64{b.at}})
		n++
	}
	name := &b.dir.names[n-1]
	if name.values%groupSize == 0 {
		b.endGroup()
		name.first = append(name.first, strings.Clone(e.value))
	}
	name.values++
	b.addString(e.value)
	b.group = binary.AppendUvarint(b.group, e.offset)
	b.group = binary.AppendUvarint(b.group, end-e.offset)
}

// endGroup ends the posting group at hand, if there is one.
func (b *builder) endGroup() {
	if len(b.group) > 0 {
		name := &b.dir.names[len(b.dir.names)-1]
		name.groups = append(name.groups, b.flush())
	}
}

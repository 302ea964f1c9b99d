package replay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

// A log is a row of pages, and records are cut at their ends. Each part of one has a header:
//
//	kind 3 bits, compression 2 bits, unused 3 bits
//	length u16
//	checksum u32
//
// A kind of 0 says that the rest of the page is empty. A record does not go on in the next segment.
const (
	logPage   = 32 << 10
	logHeader = 7

	partFull   = 1
	partFirst  = 2
	partMiddle = 3
	partLast   = 4

	partKind   = 1<<3 - 1
	partSnappy = 1 << 3
	partZstd   = 1 << 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segmentReader gets records out of segments and checks them. It leaves them compressed: others do
// that at once for several batches, which package wlog does not offer.
type segmentReader struct {
	next func() (*batch, error) // an empty one
	pass func(*batch)
	now  *batch
	read int64 // bytes

	path  string
	at    int64 // of the page in the segment
	begun bool  // a record, in now
}

// log passes on the records of checkpoint and segments in order.
func (r *segmentReader) log(l writeAheadLog) error {
	if l.checkpoint != "" {
		first, last, err := wlog.Segments(l.checkpoint)
		if err != nil {
			return fmt.Errorf("read the checkpoint: %w", err)
		}
		for n := max(first, 0); n <= last; n++ {
			if err := r.segment(wlog.SegmentName(l.checkpoint, n), -1); err != nil {
				return err
			}
		}
	}
	for _, n := range l.segments {
		if err := r.segment(wlog.SegmentName(l.dir, n), n); err != nil {
			return err
		}
	}
	return nil
}

// segment passes on the records of a file; the last batch says that segment number is done.
func (r *segmentReader) segment(path string, number int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r.path, r.at = path, 0
	buf := make([]byte, 16*logPage)
	for {
		n, err := io.ReadFull(f, buf)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		r.read += int64(n)
		for from := 0; from < n; from += logPage {
			if err := r.page(buf[from:min(n, from+logPage)]); err != nil {
				return err
			}
			r.at += logPage
		}
		if n < len(buf) {
			break
		}
	}
	if r.begun {
		return unsure("%s: the last record is torn", path)
	}
	if r.now == nil {
		if r.now, err = r.next(); err != nil {
			return err
		}
	}
	r.now.done = number
	r.flush()
	return nil
}

// page takes the parts of records in a page. The last page of a segment may be short.
func (r *segmentReader) page(b []byte) error {
	for at := 0; at < len(b); {
		kind := b[at] & partKind
		if kind == 0 {
			// A header has no checksum: were it damaged, what follows would be passed over.
			if bytes.Count(b[at:], []byte{0}) != len(b)-at {
				return r.bad(at, "the rest of the page is not empty")
			}
			return nil
		}
		if len(b)-at < logHeader {
			return r.bad(at, "no place for a header")
		}
		head, from := b[at:at+logHeader], at+logHeader
		size := int(binary.BigEndian.Uint16(head[1:]))
		if size > len(b)-from {
			return r.bad(at, "too long")
		}
		part := b[from : from+size]
		if crc32.Checksum(part, castagnoli) != binary.BigEndian.Uint32(head[3:]) {
			return r.bad(at, "checksum")
		}
		if r.begun != (kind == partMiddle || kind == partLast) || kind > partLast {
			return r.bad(at, "unexpected part of a record")
		}
		if err := r.part(part); err != nil {
			return err
		}
		if r.begun = kind == partFirst || kind == partMiddle; !r.begun {
			r.end(head[0])
		}
		at = from + size
	}
	return nil
}

func (r *segmentReader) bad(at int, what string) error {
	return unsure("%s: record at %d: %s", r.path, r.at+int64(at), what)
}

// part appends to the record that is read.
func (r *segmentReader) part(b []byte) error {
	if r.now == nil {
		var err error
		if r.now, err = r.next(); err != nil {
			return err
		}
	}
	r.now.raw = append(r.now.raw, b...)
	return nil
}

// end ends a record.
func (r *segmentReader) end(head byte) {
	rec := rawRecord{end: len(r.now.raw), compression: compression.None}
	switch {
	case head&partSnappy != 0:
		rec.compression = compression.Snappy
	case head&partZstd != 0:
		rec.compression = compression.Zstd
	}
	r.now.records = append(r.now.records, rec)
	if len(r.now.raw) >= batchBytes {
		r.flush()
	}
}

func (r *segmentReader) flush() {
	r.pass(r.now)
	r.now = nil
}

// EachRecord calls do for each record of a segment, and ends with the first error.
func EachRecord(path string, do func(rec []byte) error) error {
	seg, err := wlog.OpenReadSegment(path)
	if err != nil {
		return err
	}
	in := wlog.NewSegmentBufReader(seg)
	defer in.Close()
	r := wlog.NewReader(in)
	for r.Next() {
		if err := do(r.Record()); err != nil {
			return err
		}
	}
	return r.Err()
}

// eachLogged calls do for each record of a log's segments in a folder, from number first on. One of
// them is open at a time, however many there are. No folder has none.
func eachLogged(dir string, first int, do func(rec []byte) error) error {
	oldest, last, err := wlog.Segments(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for n := max(oldest, first); n <= last && last >= 0; n++ {
		if err := EachRecord(wlog.SegmentName(dir, n), do); err != nil {
			return err
		}
	}
	return nil
}

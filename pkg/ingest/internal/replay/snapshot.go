package replay

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// Kinds of records of a snapshot. It is a log:
//
//	series:     1, reference u64, labels, unused u64, 0, or
//	            1, mint u64, maxt u64, encoding, chunk with its length, newest value
//	exemplars:  3, as in a log
//
// The newest float comes after 56 unused bytes, where once were the samples before it.
const (
	snapshotSeries    = 1
	snapshotExemplars = 3
)

// exemplarsARecord bounds a record of exemplars.
const exemplarsARecord = 10_000

// writeSnapshot writes what was read for a TSDB whose log goes on with segment next.
func (p *replaying) writeSnapshot(next int) error {
	if err := p.checkDisk(); err != nil {
		return err
	}
	dir := filepath.Join(p.dir, fmt.Sprintf("%s%06d.%010d", snapshotPrefix, next, 0))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write a snapshot: %w", err)
	}
	f, err := os.Create(wlog.SegmentName(dir, 0))
	if err != nil {
		return fmt.Errorf("write a snapshot: %w", err)
	}
	out := recordWriter{out: bufio.NewWriterSize(f, 1<<20)}
	buf := encoding.Encbuf{}
	_ = p.series.all(func(ref chunks.HeadSeriesRef, s *series) error {
		p.stats.Series++
		buf.Reset()
		encodeSeries(&buf, ref, s)
		out.record(buf.Get())
		return nil
	})
	err = p.exemplars.each(p.series, out.record)
	if err = errors.Join(err, out.out.Flush(), f.Close()); err != nil {
		return fmt.Errorf("write a snapshot: %w", err)
	}
	return nil
}

// checkDisk asks for the room that the snapshot takes.
func (p *replaying) checkDisk() error {
	if p.cfg.Disk == nil {
		return nil
	}
	const fixed = 128 // times, encodings, headers
	sum := int64(1 << 20)
	_ = p.series.all(func(_ chunks.HeadSeriesRef, s *series) error {
		sum += int64(len(s.labels)) + fixed
		if s.open() {
			sum += int64(s.size())
		}
		if s.other != nil {
			sum += chunkenc.TargetBytesPerHistogramChunk
		}
		return nil
	})
	return p.cfg.Disk(sum)
}

// openBytes are those of all open chunks.
func (p *replaying) openBytes() (sum int64) {
	_ = p.series.all(func(_ chunks.HeadSeriesRef, s *series) error {
		if s.open() {
			sum += int64(s.size())
		}
		return nil
	})
	return sum
}

func encodeSeries(buf *encoding.Encbuf, ref chunks.HeadSeriesRef, s *series) {
	buf.PutByte(snapshotSeries)
	buf.PutBE64(uint64(ref))
	buf.B = append(buf.B, s.labels...)
	buf.PutBE64(0)
	if !s.open() {
		buf.PutUvarint(0)
		return
	}
	buf.PutUvarint(1)
	buf.PutBE64int64(s.mint)
	buf.PutBE64int64(s.last)
	buf.PutByte(byte(s.encoding()))
	buf.PutUvarintBytes(s.bytes())
	v := math.Float64frombits(s.floats.value)
	if c := s.other; c != nil {
		switch {
		case c.h != nil:
			record.EncodeHistogram(buf, c.h)
			return
		case c.fh != nil:
			record.EncodeFloatHistogram(buf, c.fh)
			return
		}
		v = c.v
	}
	buf.B = append(buf.B, make([]byte, 56)...)
	buf.PutBEFloat64(v)
}

// recordWriter writes records as a log has them.
type recordWriter struct {
	out *bufio.Writer // keeps the first error
	at  int           // in the page
}

func (w *recordWriter) record(rec []byte) {
	for first := true; first || len(rec) > 0; first = false {
		if logPage-w.at <= logHeader {
			_, _ = w.out.Write(make([]byte, logPage-w.at))
			w.at = 0
		}
		part := rec[:min(len(rec), logPage-w.at-logHeader)]
		rec = rec[len(part):]
		kind := byte(partMiddle)
		switch {
		case first && len(rec) == 0:
			kind = partFull
		case first:
			kind = partFirst
		case len(rec) == 0:
			kind = partLast
		}
		var header [logHeader]byte
		header[0] = kind
		binary.BigEndian.PutUint16(header[1:], uint16(len(part)))
		binary.BigEndian.PutUint32(header[3:], crc32.Checksum(part, castagnoli))
		_, _ = w.out.Write(header[:])
		_, _ = w.out.Write(part)
		w.at = (w.at + logHeader + len(part)) % logPage
	}
}

package fetch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/firnline/firnline/pkg/storeapi"
)

// Frame knows how a record of a TSDB file is laid out: where its length stands
// and what its checksum covers.
type Frame uint8

// The three kinds of records that are read by offset.
const (
	// Postings: length 4b | count 4b | refs | CRC over what length counts.
	Postings Frame = iota
	// Series: length uvarint | content | CRC over the content.
	Series
	// Chunk: length uvarint | encoding 1b | data | CRC over encoding and data; the length counts the data only.
	Chunk
)

var (
	errChecksum = errors.New("checksum mismatch")
	errLength   = errors.New("length out of bounds")
)

// A series entry or chunk longer than this many bytes is not believed: its
// length must be broken. Postings lists have no such bound, their length is known beforehand.
const maxRecord = 64 << 20

// crcOf is the CRC32C of b; the standard library builds the table once.
func crcOf(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// bounds reads the length at the start of b: where the checksummed content
// starts and ends. ok is false when b is too short to tell.
func (k Frame) bounds(b []byte) (start, end int64, ok bool, err error) {
	if k == Postings {
		if len(b) < 4 {
			return 0, 0, false, nil
		}
		start = 4
		end = start + int64(binary.BigEndian.Uint32(b))
	} else {
		n, w := binary.Uvarint(b)
		if w == 0 && len(b) < binary.MaxVarintLen32 {
			return 0, 0, false, nil
		}
		if w <= 0 || n == 0 || n > maxRecord {
			return 0, 0, false, errLength
		}
		start = int64(w)
		end = start + int64(n)
		if k == Chunk {
			end++
		}
	}
	return start, end, true, nil
}

// Content checks the record at the start of b and returns the bytes its checksum
// covers and the length of the whole record. A record that is not whole in b has
// a nil content and the length it needs.
func (k Frame) Content(b []byte) (content []byte, size int64, err error) {
	start, end, ok, err := k.bounds(b)
	if err != nil {
		return nil, 0, err
	}
	if !ok {
		return nil, 16, nil // enough for any length
	}
	size = end + crc32.Size
	if size > int64(len(b)) {
		return nil, size, nil
	}
	if crcOf(b[start:end]) != binary.BigEndian.Uint32(b[end:size]) {
		return nil, 0, errChecksum
	}
	return b[start:end], size, nil
}

// Strip returns the content of a record that Records has returned, which has
// been checked already.
func (k Frame) Strip(record []byte) []byte {
	start, _, _, _ := k.bounds(record)
	return record[start : len(record)-crc32.Size]
}

// Records reads the records of one object that begin where the spans do, which
// are sorted by Start; where a span ends is a guess, but for postings. A record
// longer than its guess is read again, to the byte; one that can't be right is
// read once more, and then is ErrCorrupt. The result has the whole records, including lengths
// and checksums, in the order of spans; they share memory with one another.
func (f *Fetcher) Records(ctx context.Context, t Terms, kind Frame, obj Object, spans []Span) ([][]byte, Cost, error) {
	var (
		cost    Cost
		out     = make([][]byte, len(spans))
		pending = make([]int, len(spans))
		want    = slices.Clone(spans)
		retried = map[int]bool{}
	)
	for i := range pending {
		pending[i] = i
	}
	for len(pending) > 0 {
		ask := make([]Span, len(pending))
		for i, p := range pending {
			ask[i] = want[p]
		}
		bufs, c, err := f.read(ctx, t, obj, ask)
		cost.Add(c)
		if err != nil {
			return nil, cost, err
		}
		var again []int
		for _, p := range pending {
			b := bufs.slice(want[p])
			content, size, err := kind.Content(b)
			switch {
			case err == nil && content != nil:
				out[p] = b[:size:size]
				continue
			case err == nil && kind != Postings && size > want[p].Len() && want[p].Start+size <= obj.SizeBytes:
				want[p].End = want[p].Start + size // the guess was short
			case retried[p]:
				return nil, cost, corrupt(obj.Name, want[p].Start, err)
			default:
				f.metrics.retries.Inc()
				retried[p] = true
			}
			again = append(again, p)
		}
		pending = again
	}
	return out, cost, nil
}

func corrupt(name string, at int64, err error) error {
	if err == nil {
		err = errLength
	}
	return fmt.Errorf("%w: object %s at offset %d: %w", storeapi.ErrCorrupt, name, at, err)
}

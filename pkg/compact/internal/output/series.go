package output

import (
	"encoding/binary"
	"fmt"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/input"
)

const seriesFilename = "series.tmp"

// seriesSpool keeps the series, as they come, in a temporary file until it is
// known which symbols are in use:
//
//	┌─────────────┬───────────────┬─────────────────────────────┬─────────────────────────────────┐
//	│ length <4b> │ #labels <uv>  │ name, value <uv> as numbers │ chunks as they stand in an index│
//	│ of the rest │               │ of the union, #labels times │                                 │
//	└─────────────┴───────────────┴─────────────────────────────┴─────────────────────────────────┘
type seriesSpool struct {
	file  *file
	used  numberSet // all symbols of the labels
	names numberSet // those that are names

	count     uint64
	labels    uint64 // of all series
	maxLabels int    // of one
	prev      []input.Label
	nextRef   uint64  // the lowest that the next chunk may have
	numbers   uint32  // of the union; each label's must be below
	around    []int64 // sizes of the segments, where they are not written here
}

func newSeriesSpool(open opener, path string, symbols int) (seriesSpool, error) {
	f, err := newTempFile(open, path)
	if err != nil {
		return seriesSpool{}, err
	}
	return seriesSpool{file: f, used: newNumberSet(symbols), names: newNumberSet(symbols), numbers: uint32(symbols)}, nil
}

// Longest forms, in bytes, of what the entry of a series consists of.
const (
	maxUvarint     = binary.MaxVarintLen64
	maxLabelBytes  = 2 * binary.MaxVarintLen32
	maxChunkBytes  = 3 * maxUvarint
	maxEntryFrame  = maxUvarint + crcBytes
	entryLenBytes  = 4
	maxEntryCounts = 2 * maxUvarint
)

// add checks a series and appends it. All references must be below endRef.
func (s *seriesSpool) add(labels []input.Label, chunks []input.Chunk, endRef uint64) error {
	if err := s.checkLabels(labels); err != nil {
		return err
	}
	if err := s.checkChunks(chunks, endRef); err != nil {
		return err
	}
	for _, l := range labels {
		s.used.add(l.Name)
		s.used.add(l.Value)
		s.names.add(l.Name)
	}
	s.count++
	s.labels += uint64(len(labels))
	s.maxLabels = max(s.maxLabels, len(labels))
	s.prev = append(s.prev[:0], labels...)

	f := s.file
	if err := f.room(entryLenBytes + maxEntryCounts + len(labels)*maxLabelBytes + len(chunks)*maxChunkBytes); err != nil {
		return err
	}
	start := len(f.buf)
	b := append(f.buf, 0, 0, 0, 0) // the length, set below
	b = binary.AppendUvarint(b, uint64(len(labels)))
	for _, l := range labels {
		b = binary.AppendUvarint(b, uint64(l.Name))
		b = binary.AppendUvarint(b, uint64(l.Value))
	}
	b = appendChunks(b, chunks)
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-entryLenBytes))
	f.buf = b
	return nil
}

// appendChunks appends chunks in the form that they have in an index: the first
// one in full, the others by what differs.
func appendChunks(b []byte, chunks []input.Chunk) []byte {
	b = binary.AppendUvarint(b, uint64(len(chunks)))
	if len(chunks) == 0 {
		return b
	}
	first := chunks[0]
	b = binary.AppendVarint(b, first.MinTime)
	b = binary.AppendUvarint(b, uint64(first.MaxTime-first.MinTime))
	b = binary.AppendUvarint(b, first.Ref)
	for i := 1; i < len(chunks); i++ {
		prev, c := chunks[i-1], chunks[i]
		b = binary.AppendUvarint(b, uint64(c.MinTime-prev.MaxTime))
		b = binary.AppendUvarint(b, uint64(c.MaxTime-c.MinTime))
		b = binary.AppendVarint(b, int64(c.Ref)-int64(prev.Ref))
	}
	return b
}

// checkLabels compares with the series before: as numbers, which order as the
// strings do.
func (s *seriesSpool) checkLabels(labels []input.Label) error {
	for i, l := range labels {
		if l.Name >= s.numbers || l.Value >= s.numbers {
			return fmt.Errorf("%w: label %d of series %d is symbol %d=%d of %d", errInternal, i, s.count, l.Name, l.Value, s.numbers)
		}
		if i > 0 && l.Name <= labels[i-1].Name {
			return fmt.Errorf("%w: label %d of series %d is not behind the one before", errInternal, i, s.count)
		}
	}
	if s.count > 0 && input.CompareLabels(s.prev, labels) >= 0 {
		return fmt.Errorf("%w: series %d is not behind the one before", errInternal, s.count)
	}
	return nil
}

func (s *seriesSpool) checkChunks(chunks []input.Chunk, endRef uint64) error {
	for i, c := range chunks {
		switch {
		case c.MinTime > c.MaxTime:
			return fmt.Errorf("%w: chunk %d of series %d is from %d to %d", errInternal, i, s.count, c.MinTime, c.MaxTime)
		case i > 0 && c.MinTime <= chunks[i-1].MaxTime:
			return fmt.Errorf("%w: chunk %d of series %d begins at %d, the one before ends at %d", errInternal, i, s.count, c.MinTime, chunks[i-1].MaxTime)
		case s.around != nil:
			if segment := c.Ref >> 32; segment >= uint64(len(s.around)) || int64(c.Ref&(1<<32-1)) >= s.around[segment] {
				return fmt.Errorf("%w: chunk %d of series %d has reference %#x, which is in none of %d segments", block.ErrCorrupt, i, s.count, c.Ref, len(s.around))
			}
		case c.Ref < s.nextRef || c.Ref >= endRef:
			return fmt.Errorf("%w: chunk %d of series %d has reference %#x, not from %#x to %#x", errInternal, i, s.count, c.Ref, s.nextRef, endRef)
		}
		s.nextRef = c.Ref + 1
	}
	return nil
}

// close lets go of the file.
func (s *seriesSpool) close() {
	if s.file != nil {
		s.file.Close()
	}
}

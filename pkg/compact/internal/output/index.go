package output

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"path/filepath"

	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/firnline/firnline/pkg/block"
)

const (
	seriesAlign  = 16 // a reference to a series is its offset / 16
	listAlign    = 4
	crcBytes     = crc32.Size
	tableKeys    = 2 // name and value, the only kind of key there is
	tocSections  = 6
	lengthBytes  = 4
	countBytes   = 4
	maxSection   = math.MaxUint32 // by the field for its length
	indexMagic   = index.MagicIndex
	indexVersion = index.FormatV2

	offsetsFilename = "offsets.tmp"
)

// indexStats is what was found out about an index while writing it.
type indexStats struct {
	written
	longest int64 // entry of a series, with length and checksum
}

// indexWriter writes an index, version 2, once all series are known:
//
//	┌────────────────────────┬─────────────┐
//	│ magic 0xBAAAD700 <4b>  │ version <1b>│
//	├────────────────────────┴─────────────┤
//	│ symbols: those in use                │  length, count, strings, CRC-32C
//	├──────────────────────────────────────┤
//	│ series, each aligned to 16           │  length <uvarint>, labels, chunks, CRC-32C
//	├──────────────────────────────────────┤
//	│ postings, aligned to 4: of all       │  length, count, references, CRC-32C
//	│ series, then by name and value       │
//	├──────────────────────────────────────┤
//	│ postings offset table                │  length, count, {2, name, value, offset}, CRC-32C
//	├──────────────────────────────────────┤
//	│ table of contents                    │  six offsets <8b>, CRC-32C
//	└──────────────────────────────────────┘
//
// The label indices of older versions are not written any more: no reader wants
// them, and Prometheus does not either.
type indexWriter struct {
	open   opener
	dir    string
	syms   *Symbols
	series *seriesSpool
	memory int64

	file  *file
	toc   toc
	entry []byte // of the series at work
	stats indexStats
}

// toc is where the sections begin, in the order in which it is written.
type toc struct{ symbols, series, labelIndices, labelIndicesTable, postings, postingsTable int64 }

func (w *Writer) writeIndex() (_ indexStats, err error) {
	f, err := newFile(w.env.open, filepath.Join(w.dir, block.IndexFilename), w.env.maxIndexBytes, make([]byte, 0, fileBuffer))
	if err != nil {
		return indexStats{}, err
	}
	x := &indexWriter{open: w.env.open, dir: w.dir, syms: w.syms, series: &w.series, memory: w.cfg.MemoryBytes, file: f}
	if err := x.run(); err != nil {
		return indexStats{}, errors.Join(err, f.Close())
	}
	err = f.finish()
	x.stats.written = f.written()
	return x.stats, err
}

func (x *indexWriter) run() (err error) {
	x.series.used.seal()
	x.series.names.seal()
	x.file.buf = binary.BigEndian.AppendUint32(x.file.buf, indexMagic)
	x.file.buf = append(x.file.buf, indexVersion)
	if err := x.writeSymbols(); err != nil {
		return fmt.Errorf("symbols: %w", err)
	}
	runs, err := newPostingRuns(x.open, x.dir, x.series, x.memory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, runs.remove()) }()
	if err := x.writeSeries(runs); err != nil {
		return fmt.Errorf("series: %w", err)
	}
	if err := x.writePostings(runs); err != nil {
		return fmt.Errorf("postings: %w", err)
	}
	return x.writeTOC()
}

// writeSymbols writes the symbols in use.
func (x *indexWriter) writeSymbols() error {
	x.toc.symbols = x.file.pos()
	size := int64(0)
	for n := range x.series.used.all() {
		size += stringBytes(x.syms.At(n))
	}
	if err := x.beginSection(x.series.used.count, size); err != nil {
		return err
	}
	for n := range x.series.used.all() {
		symbol := x.syms.At(n)
		if err := x.file.room(maxUvarint + len(symbol)); err != nil {
			return err
		}
		x.file.buf = appendString(x.file.buf, symbol)
	}
	return x.endSection()
}

// beginSection writes the head of a section of count entries of so many bytes.
func (x *indexWriter) beginSection(count uint32, size int64) error {
	length := countBytes + size
	if length > maxSection {
		return fmt.Errorf("%w: section of %d bytes", ErrTooLarge, length)
	}
	if err := x.file.room(lengthBytes + countBytes); err != nil {
		return err
	}
	x.file.buf = binary.BigEndian.AppendUint32(x.file.buf, uint32(length))
	x.file.startSum()
	x.file.buf = binary.BigEndian.AppendUint32(x.file.buf, count)
	return nil
}

// endSection writes the checksum of what came since beginSection.
func (x *indexWriter) endSection() error {
	if err := x.file.room(crcBytes); err != nil {
		return err
	}
	x.file.buf = binary.BigEndian.AppendUint32(x.file.buf, x.file.endSum())
	return nil
}

// writeSeries writes the series with numbers of the symbols in use, and hands
// their postings to runs.
func (x *indexWriter) writeSeries(runs *postingRuns) error {
	x.toc.series = x.file.pos()
	in, err := x.series.file.readBack()
	if err != nil {
		return err
	}
	for !in.done() {
		head, err := in.take(entryLenBytes)
		if err != nil {
			return err
		}
		entry, err := in.take(int(binary.BigEndian.Uint32(head)))
		if err != nil {
			return err
		}
		ref, err := x.writeEntry(entry, runs)
		if err != nil {
			return err
		}
		if err := runs.endSeries(ref); err != nil {
			return err
		}
		// A block summary (PERFORMANCE 3.2) is fed here: series in order, with
		// reference, labels and chunks at hand.
	}
	x.toc.labelIndices = x.file.pos()
	return x.series.file.remove()
}

// writeEntry writes a series of the spool and returns its reference.
func (x *indexWriter) writeEntry(spooled []byte, runs *postingRuns) (uint32, error) {
	labels, n := binary.Uvarint(spooled)
	if n <= 0 || labels > uint64(x.series.maxLabels) {
		return 0, errDamaged
	}
	b := binary.AppendUvarint(x.entry[:0], labels)
	for range labels {
		name, m := binary.Uvarint(spooled[n:])
		value, k := binary.Uvarint(spooled[n+max(m, 0):])
		if m <= 0 || k <= 0 || max(name, value) >= uint64(x.series.numbers) {
			return 0, errDamaged
		}
		n += m + k
		b = binary.AppendUvarint(b, uint64(x.series.used.rank(uint32(name))))
		b = binary.AppendUvarint(b, uint64(x.series.used.rank(uint32(value))))
		runs.add(x.series.names.rank(uint32(name)), uint32(value))
	}
	b = append(b, spooled[n:]...)
	x.entry = b

	if err := x.file.room(seriesAlign + maxEntryFrame + len(b)); err != nil {
		return 0, err
	}
	if err := x.file.pad(seriesAlign); err != nil {
		return 0, err
	}
	start := x.file.pos()
	x.file.buf = binary.AppendUvarint(x.file.buf, uint64(len(b)))
	x.file.buf = append(x.file.buf, b...)
	x.file.buf = binary.BigEndian.AppendUint32(x.file.buf, checksum(0, b))
	x.stats.longest = max(x.stats.longest, x.file.pos()-start)
	if start/seriesAlign > math.MaxUint32 {
		return 0, fmt.Errorf("%w: series at offset %d", ErrTooLarge, start)
	}
	return uint32(start / seriesAlign), nil
}

// writePostings merges the runs into lists, and then writes the table that
// tells where each list begins.
func (x *indexWriter) writePostings(runs *postingRuns) (err error) {
	x.toc.postings = x.file.pos()
	if err := x.file.pad(listAlign); err != nil {
		return err
	}
	table, err := newTempFile(x.open, filepath.Join(x.dir, offsetsFilename))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, table.remove()) }()

	lists, err := runs.merge()
	if err != nil {
		return err
	}
	names := x.nameStrings()
	count := uint32(0)
	for lists.next() {
		var name, value string // none: all series
		if count++; count > 1 {
			if int(lists.name) >= len(names) || int(lists.value) >= x.syms.Len() {
				return errDamaged
			}
			name, value = names[lists.name], x.syms.At(lists.value)
		}
		if err := appendOffset(table, name, value, x.file.pos()); err != nil {
			return fmt.Errorf("offset table: %w", err)
		}
		if err := x.writeList(lists); err != nil {
			return err
		}
	}
	return x.writeTable(table, count)
}

// nameStrings returns the label names by their rank.
func (x *indexWriter) nameStrings() []string {
	names := make([]string, 0, x.series.names.count)
	for n := range x.series.names.all() {
		names = append(names, x.syms.At(n))
	}
	return names
}

// writeList writes the list that lists stands at.
func (x *indexWriter) writeList(lists *postingLists) error {
	if err := x.beginSection(uint32(lists.count), lists.count*refBytes); err != nil {
		return err
	}
	if err := lists.copyTo(x.file); err != nil {
		return err
	}
	return x.endSection()
}

// appendOffset appends an entry of the postings offset table.
func appendOffset(table *file, name, value string, offset int64) error {
	if err := table.room(4*maxUvarint + len(name) + len(value)); err != nil {
		return err
	}
	b := binary.AppendUvarint(table.buf, tableKeys)
	b = appendString(b, name)
	b = appendString(b, value)
	table.buf = binary.AppendUvarint(b, uint64(offset))
	return nil
}

func (x *indexWriter) writeTable(table *file, count uint32) error {
	x.toc.labelIndicesTable = x.file.pos()
	x.toc.postingsTable = x.file.pos()
	if err := x.beginSection(count, table.pos()); err != nil {
		return err
	}
	entries, err := table.readBack()
	if err != nil {
		return err
	}
	if err := x.file.copyFrom(entries, table.pos()); err != nil {
		return fmt.Errorf("offset table: %w", err)
	}
	return x.endSection()
}

func (x *indexWriter) writeTOC() error {
	var b []byte
	for _, offset := range [tocSections]int64{
		x.toc.symbols, x.toc.series, x.toc.labelIndices, x.toc.labelIndicesTable, x.toc.postings, x.toc.postingsTable,
	} {
		b = binary.BigEndian.AppendUint64(b, uint64(offset))
	}
	return x.file.append(binary.BigEndian.AppendUint32(b, checksum(0, b)))
}

// stringBytes is how many bytes appendString appends.
func stringBytes(s string) int64 {
	var length [binary.MaxVarintLen64]byte
	return int64(binary.PutUvarint(length[:], uint64(len(s))) + len(s))
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

package heads

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/ingest/internal/replay"
)

// logPage is what a log is written in: a segment that is cut is filled up with
// zeros to its end.
const logPage = 32 << 10

// refRange is the highest series reference seen in a log.
type refRange struct{ most uint64 }

func (r *refRange) see(ref uint64) { r.most = max(r.most, ref) }

// numberedFile is a segment of a log, or a head chunk file.
type numberedFile struct {
	name  string
	index int
}

// numbered lists the files of a folder that are named by a number, in order. No folder has none.
func numbered(dir string) ([]numberedFile, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []numberedFile
	for _, e := range entries {
		i, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if e.IsDir() {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, e.Name()), syscall.EISDIR) // not missing, but in the way
		}
		out = append(out, numberedFile{e.Name(), i})
	}
	slices.SortFunc(out, func(a, b numberedFile) int { return a.index - b.index })
	return out, nil
}

// segmentCheck is what reading a segment through has come to.
type segmentCheck struct {
	records int
	good    int64 // bytes up to the end of the last good record
	torn    bool  // the file ends within a record, as after a crash
	err     error // what is bad; nil: nothing
}

// checkSegment reads a segment through, record by record.
func checkSegment(path string, refs *refRange) (c segmentCheck, err error) {
	seg, err := wlog.OpenReadSegment(path)
	if err != nil {
		return c, err
	}
	buf := wlog.NewSegmentBufReader(seg)
	defer buf.Close()
	zeros, err := zeroPage(path)
	if err != nil {
		return c, err
	}
	r := wlog.NewReader(buf)
	dec := recordReader{dec: newDecoder(), refs: refs}
	for r.Next() {
		if zeros >= 0 && r.Offset() > zeros {
			break
		}
		if c.err = dec.read(r.Record()); c.err != nil {
			return c, nil
		}
		c.records++
		c.good = r.Offset()
	}
	if c.err = r.Err(); ofSystem(c.err) {
		return c, c.err // which it takes for corruption
	}
	if zeros >= 0 && (c.err == nil || c.good <= zeros) {
		c.err = fmt.Errorf("page of zeros at byte %d", zeros)
		return c, nil
	}
	c.torn = c.err != nil && strings.Contains(c.err.Error(), "last record is torn")
	return c, nil
}

// recordReader decodes records to see that they can be, and which series they speak of.
type recordReader struct {
	dec        record.Decoder
	refs       *refRange
	series     []record.RefSeries
	samples    []record.RefSample
	stones     []tombstones.Stone
	exemplars  []record.RefExemplar
	histograms []record.RefHistogramSample
	floats     []record.RefFloatHistogramSample
	markers    []record.RefMmapMarker
	metadata   []record.RefMetadata
}

func (d *recordReader) read(rec []byte) (err error) {
	switch d.dec.Type(rec) {
	case record.Series:
		d.series, err = d.dec.Series(rec, d.series[:0])
		for _, s := range d.series {
			d.refs.see(uint64(s.Ref))
		}
	case record.Samples, record.SamplesV2:
		d.samples, err = d.dec.Samples(rec, d.samples[:0])
		for _, s := range d.samples {
			d.refs.see(uint64(s.Ref))
		}
	case record.Tombstones:
		d.stones, err = d.dec.Tombstones(rec, d.stones[:0])
		for _, s := range d.stones {
			d.refs.see(uint64(s.Ref))
		}
	case record.Exemplars:
		d.exemplars, err = d.dec.Exemplars(rec, d.exemplars[:0])
	case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
		d.histograms, err = d.dec.HistogramSamples(rec, d.histograms[:0])
		for _, s := range d.histograms {
			d.refs.see(uint64(s.Ref))
		}
	case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
		d.floats, err = d.dec.FloatHistogramSamples(rec, d.floats[:0])
		for _, s := range d.floats {
			d.refs.see(uint64(s.Ref))
		}
	case record.MmapMarkers:
		d.markers, err = d.dec.MmapMarkers(rec, d.markers[:0])
	case record.Metadata:
		d.metadata, err = d.dec.Metadata(rec, d.metadata[:0])
	default: // the TSDB passes over what it does not know
	}
	return err
}

// eachRef calls do for each sample that was read and kept, with its series.
func (d *recordReader) eachRef(do func(ref uint64)) {
	for _, s := range d.samples {
		do(uint64(s.Ref))
	}
	for _, s := range d.histograms {
		do(uint64(s.Ref))
	}
	for _, s := range d.floats {
		do(uint64(s.Ref))
	}
}

// zeroPage finds the first page of a segment that holds nothing, -1 if there is
// none. A log never writes one; the TSDB passes over it as over padding, and nobody
// would hear of what is missing.
func zeroPage(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var first [1]byte
	for at := int64(0); ; at += logPage {
		switch _, err := f.ReadAt(first[:], at); {
		case errors.Is(err, io.EOF):
			return -1, nil
		case err != nil:
			return 0, err
		case first[0] == 0:
			return at, nil
		}
	}
}

// suspect looks for damage that the TSDB would not notice, or not open with:
// pages of zeros, missing segments, and a bad checkpoint. Of the log itself a
// byte a page is read, of the checkpoint everything.
func (m *mender) suspect() (bool, error) {
	for _, name := range []string{walDir, wblDir} {
		dir := filepath.Join(m.dir, name)
		segments, err := numbered(dir)
		if err != nil {
			return false, err
		}
		for i, s := range segments {
			at, err := zeroPage(filepath.Join(dir, s.name))
			if err != nil || at >= 0 || i > 0 && segments[i-1].index+1 != s.index {
				return err == nil, err
			}
		}
		if bad, err := badStart(dir, segments); name == walDir && (bad || err != nil) {
			return bad, err
		}
	}
	return false, nil
}

// badStart tells whether a log's newest checkpoint can't be read, or its first segment is missing.
func badStart(dir string, segments []numberedFile) (bool, error) {
	checkpoint, at, err := wlog.LastCheckpoint(dir)
	switch {
	case errors.Is(err, record.ErrNotFound):
		return len(segments) > 0 && segments[0].index != 0, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case len(segments) > 0 && segments[0].index > at+1:
		return true, nil
	}
	parts, err := numbered(checkpoint)
	if err != nil {
		return false, err
	}
	records := 0
	for i, p := range parts {
		if p.index != i {
			return true, nil
		}
		err := replay.EachRecord(filepath.Join(checkpoint, p.name), func([]byte) error { records++; return nil })
		if ofSystem(err) {
			return false, err
		}
		if err != nil {
			return true, nil //nolint:nilerr // it is bad, and mended
		}
	}
	return records == 0, nil
}

// cutTail cuts a record off that a crash has left half-written at the end of a
// log: the one sort of damage that is to be expected, and that no answer stood for.
// Any other is for mend.
func (m *mender) cutTail(name string) error {
	dir := filepath.Join(m.dir, name)
	segments, err := numbered(dir)
	if err != nil || len(segments) == 0 {
		return err
	}
	path := filepath.Join(dir, segments[len(segments)-1].name)
	c, err := checkSegment(path, &refRange{})
	if err != nil || !c.torn {
		return err
	}
	before, err := os.Stat(path)
	if err != nil {
		return err
	}
	err = m.cut(path, name, c)
	if now, e := os.Stat(path); err != nil && e == nil && os.SameFile(before, now) {
		m.takeBack()
	}
	m.tellAside()
	return err
}

// cut shortens a segment to its good records. The original is put aside.
func (m *mender) cut(path, what string, c segmentCheck) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := m.keepAside(path, what, fmt.Sprintf("cut after %d records, %d bytes: %s", c.records, c.good, c.err)); err != nil {
		return err
	}
	if err := m.fault("mend/cut"); err != nil {
		return err
	}
	return block.CreateFile(path, func(w io.Writer) error {
		if _, err := io.CopyN(w, f, c.good); err != nil {
			return err
		}
		_, err := w.Write(bytes.Repeat([]byte{0}, int((logPage-c.good%logPage)%logPage)))
		return err
	})
}

// mendLog returns what cuts a log at its first bad record or missing segment.
func (m *mender) mendLog(name string) func(*refRange) (bool, error) {
	return func(refs *refRange) (bool, error) {
		dir := filepath.Join(m.dir, name)
		segments, err := numbered(dir)
		if err != nil {
			return false, err
		}
		next := -1 // the segment that has to come; -1: any
		if name == walDir {
			if segments, next, err = m.afterCheckpoint(dir, segments); err != nil {
				return false, err
			}
		}
		return m.cutLog(dir, name, segments, next, refs)
	}
}

func (m *mender) cutLog(dir, what string, segments []numberedFile, next int, refs *refRange) (damaged bool, err error) {
	for _, s := range segments {
		path := filepath.Join(dir, s.name)
		c, err := checkSegment(path, refs)
		if err != nil {
			return damaged, err
		}
		switch {
		case damaged || next >= 0 && s.index != next:
			why := "it follows what is damaged"
			if !damaged {
				why = fmt.Sprintf("segment %d is missing", next)
			}
			damaged = true
			m.news = append(m.news, func() { m.metrics.lostRecords.Add(float64(c.records)) })
			err = m.putAside(path, what, why)
		case c.err != nil:
			damaged = true
			err = m.cut(path, what, c)
		}
		if err != nil {
			return damaged, err
		}
		next = s.index + 1
	}
	return damaged, nil
}

// afterCheckpoint returns the segments that the newest checkpoint does not stand
// for, and which has to be the first. Where there is no checkpoint and the
// first segments are gone, an empty one takes their place: the TSDB wants it.
func (m *mender) afterCheckpoint(dir string, segments []numberedFile) (rest []numberedFile, next int, err error) {
	_, at, err := wlog.LastCheckpoint(dir)
	switch {
	case errors.Is(err, record.ErrNotFound) && (len(segments) == 0 || segments[0].index == 0):
		return segments, 0, nil
	case errors.Is(err, record.ErrNotFound):
		at = segments[0].index - 1
		m.news = append(m.news, func() {
			m.log.Error("checkpoint is missing: series are known only from what was logged after it", "checkpoint", at)
			m.metrics.damages.WithLabelValues("checkpoint").Inc()
		})
		if err := emptyLog(filepath.Join(dir, fmt.Sprintf("checkpoint.%08d", at))); err != nil {
			return nil, 0, err
		}
	case err != nil:
		return nil, 0, err
	}
	for len(segments) > 0 && segments[0].index <= at {
		segments = segments[1:]
	}
	return segments, at + 1, nil
}

// mendCheckpoint cuts the newest checkpoint at its first bad record. The log
// after it stays: of series that are lost with it the TSDB leaves samples out, and counts them.
func (m *mender) mendCheckpoint(refs *refRange) (bool, error) {
	dir, _, err := wlog.LastCheckpoint(filepath.Join(m.dir, walDir))
	if errors.Is(err, record.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	segments, err := numbered(dir)
	if err != nil {
		return false, err
	}
	damaged, err := m.cutLog(dir, "checkpoint", segments, 0, refs)
	if err != nil {
		return damaged, err
	}
	left, err := numbered(dir)
	if err != nil || treeBytes(dir) > 0 {
		return damaged, err
	}
	if !damaged {
		m.news = append(m.news, func() {
			m.log.Error("checkpoint is empty: series are known only from what was logged after it", "checkpoint", dir)
			m.metrics.damages.WithLabelValues("checkpoint").Inc()
		})
	}
	if len(left) > 0 {
		return true, nil
	}
	return true, emptyLog(dir)
}

// emptyLog makes a log of one segment without records.
func emptyLog(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := block.CreateFile(filepath.Join(dir, fmt.Sprintf("%08d", 0)), func(io.Writer) error { return nil }); err != nil {
		return err
	}
	return block.SyncDir(filepath.Dir(dir))
}

// spareRefs is how many references are left unused after damage: more series
// than a head creates between two segments.
const spareRefs = 1 << 24

// reserve writes a record that makes the TSDB give new series references far
// above those seen: that a reference was deleted, which nobody has.
func (m *mender) reserve(refs refRange) error {
	if err := m.fault("mend/reserve"); err != nil {
		return err
	}
	w, err := wlog.New(slog.New(slog.DiscardHandler), nil, filepath.Join(m.dir, walDir), compression.None)
	if err != nil {
		return err
	}
	var enc record.Encoder
	all := tombstones.Intervals{{Mint: math.MinInt64, Maxt: math.MaxInt64}}
	err = w.Log(enc.Tombstones([]tombstones.Stone{{Ref: storage.SeriesRef(refs.most + spareRefs), Intervals: all}}, nil))
	return errors.Join(err, w.Close())
}

package heads

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/ingest/internal/replay"
)

// lateMark stands in the log of late samples for a chunk of these that was given to the head
// chunk files: the samples of the series before it are not needed any more. A reference of
// zero says the same of a chunk that is not named, as those are that are being cut into a block.
type lateMark = record.RefMmapMarker

// lostMarks are the marks whose chunk a crash has lost: chunks are buffered, marks are not.
type lostMarks struct {
	dir  string // of the TSDB
	lost map[lateMark]struct{}
}

// dropLostMarks takes the marks of lost chunks out of the log of late samples. The TSDB passes over
// a mark that points behind all chunks, but only until there are newer ones: then samples that
// were acknowledged would be left out.
//
// A segment is replaced at once, and the others stay as they are: a crash in
// between leaves marks for the next time. A log that can't be read to its end is for
// the mender first.
func dropLostMarks(dir string, log *slog.Logger) error {
	l := lostMarks{dir, map[lateMark]struct{}{}}
	segments, err := numbered(filepath.Join(dir, wblDir))
	if err != nil {
		return err
	}
	named, in, err := l.readLog(segments)
	if ofSystem(err) {
		return err
	}
	if err != nil {
		log.Debug("log of late samples can't be read for marks", "err", err)
		return nil // the TSDB will find it damaged, too
	}
	if err := l.find(named); err != nil {
		return err
	}
	for _, s := range segments {
		if !slices.ContainsFunc(in[s.index], l.has) {
			continue
		}
		log.Warn("chunks of late samples may be lost, their samples are not: marks that stand for them are taken out of the log", "segment", s.index)
		if err := l.rewrite(filepath.Join(dir, wblDir, s.name)); err != nil {
			return fmt.Errorf("take marks out of the log of late samples, segment %d: %w", s.index, err)
		}
	}
	return nil
}

func (l *lostMarks) has(m lateMark) bool { _, ok := l.lost[m]; return ok }

// readLog returns the marks that name a chunk, and all by their segment. Those that name none
// are lost if they stand behind samples: whether their chunk is there can't be told.
func (l *lostMarks) readLog(segments []numberedFile) (named map[lateMark]struct{}, in map[int][]lateMark, err error) {
	named, in = map[lateMark]struct{}{}, map[int][]lateMark{}
	open := map[uint64]struct{}{} // series with samples that no mark stands for
	d := recordReader{dec: newDecoder(), refs: &refRange{}}
	for _, s := range segments {
		err := replay.EachRecord(filepath.Join(l.dir, wblDir, s.name), func(rec []byte) error {
			d.samples, d.histograms, d.floats, d.markers = d.samples[:0], d.histograms[:0], d.floats[:0], d.markers[:0]
			if err := d.read(rec); err != nil {
				return err
			}
			for _, m := range d.markers {
				_, late := open[uint64(m.Ref)]
				switch {
				case m.MmapRef != 0:
					named[m] = struct{}{}
					delete(open, uint64(m.Ref))
				case late:
					l.lost[m] = struct{}{}
				}
			}
			in[s.index] = append(in[s.index], d.markers...)
			d.eachRef(func(ref uint64) { open[ref] = struct{}{} })
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return named, in, nil
}

// find looks for the chunks of marks in the head chunk files. A chunk in a file before
// the first was cut into a block.
func (l *lostMarks) find(named map[lateMark]struct{}) error {
	if len(named) == 0 {
		return nil
	}
	dir := filepath.Join(l.dir, chunksDir)
	there, end, err := lateChunks(dir, named)
	if err != nil {
		return err
	}
	files, err := numbered(dir)
	if err != nil {
		return err
	}
	first := 0
	if len(files) > 0 {
		first = files[0].index
	}
	for m := range named {
		file, _ := m.MmapRef.Unpack()
		_, ok := there[m]
		if file >= end || file >= first && !ok {
			l.lost[m] = struct{}{}
		}
	}
	return nil
}

// lateChunks are those marks whose chunk is in a head chunk file. The TSDB removes the
// files from end on, since the first of them is damaged.
func lateChunks(dir string, named map[lateMark]struct{}) (there map[lateMark]struct{}, end int, err error) {
	m, err := chunks.NewChunkDiskMapper(nil, dir, nil, chunks.MinWriteBufferSize, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("open head chunk files: %w", err)
	}
	there = map[lateMark]struct{}{}
	err = m.IterateAllChunks(func(ref chunks.HeadSeriesRef, at chunks.ChunkDiskMapperRef, _, _ int64, _ uint16, _ chunkenc.Encoding, late bool) error {
		mark := lateMark{Ref: ref, MmapRef: at}
		if _, ok := named[mark]; ok && late {
			there[mark] = struct{}{}
		}
		return nil
	})
	end = math.MaxInt
	var bad *chunks.CorruptionErr
	if errors.As(err, &bad) {
		end, err = bad.FileIndex, nil
	}
	return there, end, errors.Join(err, m.Close())
}

// rewrite replaces a segment by one without the marks that are lost.
func (l *lostMarks) rewrite(path string) (err error) {
	tmp := filepath.Join(l.dir, damagedDir, heldTmpDir)
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, os.RemoveAll(tmp))
		_ = os.Remove(filepath.Dir(tmp)) // if nothing else is in it
	}()
	const oneSegment = math.MaxInt32 / logPage * logPage // whatever the size
	w, err := wlog.NewSize(slog.New(slog.DiscardHandler), nil, tmp, oneSegment, compression.Snappy)
	if err != nil {
		return err
	}
	dec := newDecoder()
	err = replay.EachRecord(path, func(rec []byte) error {
		if dec.Type(rec) != record.MmapMarkers {
			return w.Log(rec)
		}
		marks, err := dec.MmapMarkers(rec, nil)
		if err != nil {
			return err
		}
		if marks = slices.DeleteFunc(marks, l.has); len(marks) == 0 {
			return nil
		}
		var enc record.Encoder
		return w.Log(enc.MmapMarkers(marks, nil))
	})
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	return replaceSynced(path, filepath.Join(tmp, fmt.Sprintf("%08d", 0)))
}

// replaceSynced moves a file to the place of another.
func replaceSynced(path, by string) error {
	f, err := os.Open(by)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(by, path); err != nil {
		return err
	}
	return block.SyncDir(filepath.Dir(path))
}

func newDecoder() record.Decoder {
	return record.NewDecoder(labels.NewSymbolTable(), slog.New(slog.DiscardHandler))
}

// Package replay reads the log of a TSDB that is closed, and leaves what it came
// to where the TSDB starts from it. The TSDB itself looks up the series of every
// sample in its log and takes its lock, though most samples are in its head chunk files
// already: these are passed over here at the cost of decoding them.
//
//	chunks_head ─► how far each series is covered ─┐
//	checkpoint, segments ─► records ─► series ─────┼─► full chunks: chunks_head
//	                                               └─► open ones: chunk_snapshot.<next segment>.0
//
// The TSDB loads the snapshot, attaches the head chunks, and finds no log behind
// it but that of out-of-order samples, which it reads as ever. The log stays
// as it is: it is read again at the next start, and by the TSDB whenever a snapshot is not there
// or can't be read. So nothing here is synced, and no snapshot may outlive the opening.
//
// Prepare is all or nothing. What it does not know for certain it leaves to the
// TSDB, with an error that says why and the folder as it was.
package replay

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// Folders of a TSDB.
const (
	walDir         = "wal"
	wblDir         = "wbl"
	chunksDir      = "chunks_head"
	snapshotPrefix = "chunk_snapshot."
)

// Config is how the TSDB will be opened.
type Config struct {
	ChunkRange       int64 // ms; chunks don't reach across its multiples
	SamplesPerChunk  int   // aimed at
	WriteBuffer      int   // bytes, of head chunk files
	Floats           chunkenc.Encoding
	Histograms       chunkenc.Encoding // of integers
	FloatHistograms  chunkenc.Encoding
	StartTimestamps  bool
	MaxExemplars     int   // 0: none are kept
	OutOfOrderWindow int64 // ms, of exemplars
	BlocksMaxTime    int64 // ms; what in-order blocks hold ends there. math.MinInt64: there are none

	// Memory is told what the TSDB is going to hold, part by part as it shows, and tells why there may be no more.
	// It is asked for nothing, too, while records are read: it may take its time for the sake of memory.
	Memory func(more Memory) error
	// Buffers is about how many bytes of records may be on their way. 0: as many as are good for speed.
	Buffers int64
	// Disk tells why so many bytes can't be written.
	Disk func(bytes int64) error
	// Progress is told each segment that was read.
	Progress func(first, last, current int)
}

// Stats are what was read.
type Stats struct {
	Series  int
	Aliases int // older references of these
	Samples int // in order, of any kind, those passed over with them
	Encoded int // of these, into chunks
	Bytes   int64
	Memory  Memory // that the TSDB is going to hold
}

// ErrUnsure is a log with something in it that only the TSDB itself should judge.
var ErrUnsure = errors.New("left to the TSDB")

// ErrNoLog is a TSDB that has no log to be read.
var ErrNoLog = errors.New("no log")

func unsure(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrUnsure, fmt.Errorf(format, args...))
}

// Prepare reads the log of the TSDB in dir, which must be closed, and writes a
// snapshot for it. After an error there is none, and the folder is as it was. The
// caller calls Remove when the TSDB is open.
func Prepare(dir string, cfg Config) (Stats, error) {
	if err := Remove(dir); err != nil {
		return Stats{}, err
	}
	l, err := findLog(filepath.Join(dir, walDir))
	if err != nil {
		return Stats{}, err
	}
	if len(l.segments) == 0 {
		if l.checkpoint != "" {
			return Stats{}, unsure("nothing was logged after the checkpoint")
		}
		return Stats{}, ErrNoLog
	}
	p := &replaying{cfg: cfg, dir: dir, series: newTable()}
	p.mint = max(cfg.BlocksMaxTime, l.mint, math.MinInt64+1) // there is a time before it
	if err := p.run(l); err != nil {
		return Stats{}, errors.Join(err, p.undo(), Remove(dir))
	}
	return p.stats, nil
}

// Remove removes all snapshots from the folder of a TSDB, and those that were being made.
func Remove(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), snapshotPrefix) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("remove a snapshot: %w", err)
			}
		}
	}
	return nil
}

// writeAheadLog is what there is to read.
type writeAheadLog struct {
	dir        string
	checkpoint string // its folder; empty: none
	segments   []int  // after the checkpoint, without a gap
	mint       int64  // ms; what is older has been cut into blocks
}

func findLog(dir string) (writeAheadLog, error) {
	l := writeAheadLog{dir: dir, mint: math.MinInt64}
	first, last, err := wlog.Segments(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && last < 0 {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	checkpoint, at, err := wlog.LastCheckpoint(dir)
	switch {
	case errors.Is(err, record.ErrNotFound):
		if first != 0 {
			return l, unsure("the log begins with segment %d and has no checkpoint", first)
		}
	case err != nil:
		return l, err
	default:
		if first > at+1 {
			return l, unsure("between checkpoint %d and segment %d some are missing", at, first)
		}
		l.checkpoint, first = checkpoint, at+1
		if mint, ok, err := wlog.ReadMinValidTime(dir); err != nil {
			return l, err
		} else if ok {
			l.mint = mint
		}
	}
	for i := first; i <= last; i++ {
		l.segments = append(l.segments, i)
	}
	return l, nil
}

// replaying is one Prepare under way.
type replaying struct {
	cfg    Config
	dir    string
	mint   int64 // ms; older samples are in blocks
	series *table
	chunks *chunkFiles
	stats  Stats

	exemplars exemplars
}

// takes is told what the TSDB is going to hold more, and tells why it can't. One goroutine calls it at a time.
func (p *replaying) takes(more Memory) error {
	p.stats.Memory.Series += more.Series
	p.stats.Memory.Chunks += more.Chunks
	p.stats.Memory.Bytes += more.Bytes
	if p.cfg.Memory == nil {
		return nil
	}
	return p.cfg.Memory(more)
}

func (p *replaying) run(l writeAheadLog) error {
	var err error
	if p.chunks, err = openChunkFiles(filepath.Join(p.dir, chunksDir), p.cfg.WriteBuffer); err != nil {
		return err
	}
	p.exemplars = exemplars{most: p.cfg.MaxExemplars, window: p.cfg.OutOfOrderWindow}
	err = p.chunks.iterate(p.mint, p.series)
	if err == nil {
		err = p.takes(Memory{Chunks: p.chunks.found})
	}
	if err == nil {
		err = p.readLog(l)
	}
	if err = errors.Join(err, p.chunks.close()); err != nil {
		return err
	}
	p.stats.Aliases = len(p.series.aliases)
	if err := p.takes(Memory{Chunks: p.chunks.mu.added, Bytes: p.openBytes()}); err != nil {
		return err
	}
	if err := p.checkLate(); err != nil {
		return err
	}
	return p.writeSnapshot(l.segments[len(l.segments)-1] + 1)
}

// undo removes what was added to the head chunk files.
func (p *replaying) undo() error {
	if p.chunks == nil {
		return nil
	}
	return p.chunks.undo()
}

package heads

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/ingest/internal/replay"
)

// A TSDB starts from a snapshot of its head, if there is one: from that of its last
// closing, or else from what package replay makes of its log. Only what that is not sure
// about the TSDB reads itself, which takes several times as long.
//
// No snapshot is there while the TSDB is open: what is cut from the head or logged would make
// it wrong. One of a closing counts only if a note that was made after it names it, so that
// neither a torn one is taken, nor one that another program has left, nor one of a head that should not have one.

// How a TSDB came to what it holds.
const (
	startedFromEnd = "closing" // from the snapshot of its last closing
	startedFromLog = "log"     // from its log, read by package replay
	startedByTSDB  = "tsdb"    // from its log, read by the TSDB
)

// endNote says that the TSDB was closed in order, and left a snapshot of all that is in its log.
type endNote struct {
	Version  int              `json:"version"`
	Snapshot string           `json:"snapshot"` // folder
	Bytes    map[string]int64 `json:"bytes"`    // in this folder, and those that it goes with
	Series   int              `json:"series"`   // in the head
	Chunks   int              `json:"chunks"`   // of these, in memory and in files
}

const (
	endNoteFilename = "snapshot.json"
	endNoteVersion  = 1
)

// buffersShare is how many times what records of a log on their way take goes into the memory limit.
const buffersShare = 16

// started leaves a snapshot for the TSDB to start from, and returns where it is from.
func (h *head) started(lim Limits, stats *tsdb.DBStats) (from string, err error) {
	if ok, err := h.closedInOrder(); err != nil || ok {
		return startedFromEnd, err
	}
	if err := dropLostMarks(h.dir, h.log); err != nil {
		return "", err
	}
	got, err := replay.Prepare(h.dir, h.replayConfig(lim, stats))
	switch {
	case errors.Is(err, errNoRoom), isDiskFull(err):
		return "", err // the TSDB would take more of both
	case ofSystem(err):
		return "", err // the TSDB would take it for damage
	case errors.Is(err, replay.ErrNoLog):
		return startedFromLog, nil
	case err != nil:
		h.log.Info("the TSDB reads its log itself, which takes longer", "why", err)
		return startedByTSDB, replay.Measure(h.dir, h.room().plan)
	}
	h.census.room.await(got.Memory)
	h.log.Debug("log read", "series", got.Series, "samples", got.Samples, "encoded", got.Encoded, "bytes", got.Bytes)
	if h.heads.isLarge(got.Series) {
		runtime.GC() // what was taken for it is free for the TSDB
	}
	return startedFromLog, nil
}

// isLarge tells whether a tenant has as many series as all that are open. A collection goes
// through the memory of all: one for each of many tenants would cost more than opening them.
func (hs *Heads) isLarge(series int) bool {
	if series <= lookEvery {
		return false
	}
	open := int64(0)
	for _, n := range hs.SeriesCounts() {
		open += n
	}
	return int64(series) >= open
}

// closedInOrder tells whether the snapshot of the last closing is there and all
// that is. Its note is taken away: it holds for one opening, but not for one that there is no memory for.
// Other snapshots are removed.
func (h *head) closedInOrder() (bool, error) {
	path := filepath.Join(h.dir, endNoteFilename)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, replay.Remove(h.dir)
	}
	if err != nil {
		return false, err
	}
	var n endNote
	good := json.Unmarshal(data, &n) == nil && n.Version == endNoteVersion && h.whole(n)
	if good {
		if err := h.room().plan(n.memory()); err != nil {
			return false, err
		}
		h.census.room.await(n.memory())
	}
	if err := errors.Join(os.Remove(path), block.SyncDir(h.dir)); err != nil {
		return false, err
	}
	if !good {
		return false, replay.Remove(h.dir)
	}
	return true, nil
}

// room is a new one for what this head is going to hold.
func (h *head) room() *room { return newRoom(h.heads.memory, &h.heads.gc) }

// memory is what the head will hold that starts from the snapshot. A note of an
// older version does not tell.
func (n endNote) memory() replay.Memory {
	if n.Series == 0 {
		return replay.Memory{}
	}
	const besides = 108 // bytes of a record of the snapshot that are not labels, nor its chunk
	return replay.Memory{
		Series: n.Series, Chunks: max(0, n.Chunks-n.Series), // an open one each
		Bytes: max(0, n.Bytes[n.Snapshot]-besides*int64(n.Series)),
	}
}

// whole tells whether a snapshot is the newest, and all is as it was when its note was
// made: it is good for nothing beside another log, and without the head chunks that it does not hold. Whoever
// opens a TSDB begins a segment of its log, even if nothing is written then.
func (h *head) whole(n endNote) bool {
	now, err := h.endNow()
	return err == nil && now.Snapshot == n.Snapshot && maps.Equal(now.Bytes, n.Bytes)
}

// endNow is what a note says if it is made now.
func (h *head) endNow() (endNote, error) {
	found, at, _, err := tsdb.LastChunkSnapshot(h.dir)
	if err != nil {
		return endNote{}, err
	}
	_, last, err := wlog.Segments(filepath.Join(h.dir, walDir))
	if err != nil {
		return endNote{}, err
	}
	if at != last {
		return endNote{}, fmt.Errorf("snapshot of segment %d, and the log ends with %d", at, last)
	}
	n := endNote{Version: endNoteVersion, Snapshot: filepath.Base(found), Bytes: map[string]int64{}}
	for _, folder := range []string{n.Snapshot, walDir, wblDir, chunksDir} {
		n.Bytes[folder] = treeBytes(filepath.Join(h.dir, folder))
	}
	return n, nil
}

// keepReferences makes a series without samples right before the TSDB is closed. It gets the highest
// reference that there is, and so the snapshot tells the next opening where to go on. That of a series that
// has left the head and is in the log still would be given to another one otherwise, and at the start after a crash
// their samples could not be told apart. The TSDB drops the series when it has read the snapshot.
func (h *head) keepReferences() error {
	h.census.enforce.Store(false) // it counts for no limit
	app := h.db.AppenderV2(context.Background())
	lset := labels.FromStrings("__closed__", strconv.FormatInt(h.heads.now().UnixNano(), 10))
	_, err := app.Append(0, lset, 0, math.MaxInt64, 0, nil, nil, storage.AOptions{})
	return errors.Join(err, app.Rollback())
}

// noteEnd notes that the TSDB was closed in order, with so many series and chunks.
func (h *head) noteEnd(series, chunks int) error {
	n, err := h.endNow()
	n.Series, n.Chunks = series, chunks
	if errors.Is(err, record.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return block.WriteFile(filepath.Join(h.dir, endNoteFilename), data)
}

// replayConfig is how a log is to be read, so that the TSDB goes on with it.
func (h *head) replayConfig(lim Limits, stats *tsdb.DBStats) replay.Config {
	o := h.options(lim)
	xor2, st := o.FloatChunkEncoding == chunkenc.EncXOR2, o.EnableHistogramSTEncoding
	return replay.Config{
		ChunkRange: o.MinBlockDuration, SamplesPerChunk: tsdb.DefaultSamplesPerChunk, WriteBuffer: o.HeadChunksWriteBufferSize,
		Floats:          chunkenc.ValFloat.ChunkEncoding(xor2, st),
		Histograms:      chunkenc.ValHistogram.ChunkEncoding(xor2, st),
		FloatHistograms: chunkenc.ValFloatHistogram.ChunkEncoding(xor2, st),
		StartTimestamps: o.EnableSTStorage, MaxExemplars: int(o.MaxExemplars), OutOfOrderWindow: o.OutOfOrderTimeWindow,
		BlocksMaxTime: h.blocksMaxTime(),
		Memory:        h.room().plan,
		Buffers:       h.heads.memory.Limit / buffersShare,
		Disk:          h.heads.disk.checkSnapshot,
		Progress: func(first, last, current int) {
			s := stats.Head.WALReplayStatus
			s.Lock()
			defer s.Unlock()
			s.Min, s.Max, s.Current = first, last, current
		},
	}
}

// blocksMaxTime is where the blocks of samples in order end, ms: what is older in the log is in them.
func (h *head) blocksMaxTime() int64 {
	most := int64(math.MinInt64)
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return most
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err != nil {
			continue
		}
		m, err := block.ReadMeta(filepath.Join(h.dir, e.Name()))
		if err != nil {
			continue // seen by the mender
		}
		c := tsdb.BlockMetaCompaction{Hints: m.Compaction.Hints}
		if !c.FromOutOfOrder() && !c.FromStaleSeries() && !c.FromSelectedSeries() {
			most = max(most, m.MaxTime)
		}
	}
	return most
}

package replay

import (
	"encoding/binary"
	"errors"
	"hash/maphash"
	"path/filepath"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
)

// What a head takes of memory while it is loaded, in bytes, next to labels and open chunks: measured,
// and rather too little than too much (TestMemoryOfHead).
const (
	seriesMemory = 520 // its struct, chunk and appender, and a place in the tables
	labelMemory  = 16  // of each label: a posting, and a part of its value's
	chunkMemory  = 40  // of each chunk in head chunk files
)

// Memory is what a TSDB holds, as far as it says how much memory it takes.
type Memory struct {
	Series int
	Chunks int   // in head chunk files
	Bytes  int64 // of labels and open chunks, as they are in the log and in a snapshot
}

// Size is that in the memory of the TSDB, in bytes.
func (m Memory) Size() int64 { return int64(m.Series)*seriesMemory + m.ChunkSize() + m.Bytes }

// ChunkSize is the part that the TSDB takes after all series.
func (m Memory) ChunkSize() int64 { return int64(m.Chunks) * chunkMemory }

// memoryOf is that of one series whose labels the log encodes so.
func memoryOf(lset []byte) Memory {
	n, _ := binary.Uvarint(lset)
	return Memory{Series: 1, Bytes: int64(len(lset)) + int64(n)*labelMemory}
}

// Measure tells more what the TSDB in dir, which must be closed, comes to hold when it reads its log
// itself, part by part. An error of more ends it. Only series are looked at, and what can't be
// read is left to the TSDB.
func Measure(dir string, more func(Memory) error) error {
	files, err := openChunkFiles(filepath.Join(dir, chunksDir), chunks.DefaultWriteBufferSize)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	held := Memory{}
	_ = files.mapper.IterateAllChunks(func(chunks.HeadSeriesRef, chunks.ChunkDiskMapperRef, int64, int64, uint16, chunkenc.Encoding, bool) error {
		held.Chunks++
		return nil
	})
	if err := errors.Join(files.close(), more(held)); err != nil {
		return err
	}
	l, err := findLog(filepath.Join(dir, walDir))
	if err != nil || len(l.segments) == 0 {
		return nil //nolint:nilerr // see above
	}
	m := measuring{seen: map[uint64]struct{}{}, seed: maphash.MakeSeed(), more: more}
	if l.checkpoint != "" {
		err = eachLogged(l.checkpoint, 0, m.record)
	}
	if err == nil {
		_ = eachLogged(l.dir, l.segments[0], m.record)
	}
	return m.full
}

// measuring tells more each series of a log once, whatever its references.
type measuring struct {
	seen map[uint64]struct{}
	seed maphash.Seed
	more func(Memory) error
	full error // of more
}

func (m *measuring) record(rec []byte) error {
	if len(rec) == 0 || record.Type(rec[0]) != record.Series {
		return nil
	}
	for b := rec[1:]; len(b) > 8; {
		size, err := labelBytes(b[8:])
		if err != nil {
			return err
		}
		lset := b[8 : 8+size]
		b = b[8+size:]
		hash := maphash.Bytes(m.seed, lset)
		if _, known := m.seen[hash]; known {
			continue
		}
		m.seen[hash] = struct{}{}
		if m.full = m.more(memoryOf(lset)); m.full != nil {
			return m.full
		}
	}
	return nil
}

package block

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// What is wrong with a block. Errors that wrap them name the block and say what to do.
var (
	// ErrPartial marks a block without a meta.json: still being uploaded, or being removed. Skip it and look later.
	ErrPartial = errors.New("partial block")
	// ErrCorrupt marks bytes that can't be right. Skip the block; it needs an operator.
	ErrCorrupt = errors.New("corrupt block")
	// ErrUnknownVersion marks a block written by a program newer than this one. Skip it; never guess.
	ErrUnknownVersion = errors.New("unknown version")
)

// Versions of meta.json that are read and written.
const (
	tsdbVersion   = 1
	thanosVersion = 1
)

// Deduped is the value of a replica label that deduplication could not take off,
// since a block must have an external label.
const Deduped = "deduped"

// Resolutions of blocks, in ms.
const (
	ResolutionRaw = int64(0)
	Resolution5m  = int64(5 * time.Minute / time.Millisecond)
	Resolution1h  = int64(time.Hour / time.Millisecond)
)

// Values of Thanos.Source that mean something to a reader. Any string is allowed.
const (
	SourceSidecar         = "sidecar"
	SourceReceive         = "receive"
	SourceRuler           = "ruler"
	SourceCompactor       = "compactor"
	SourceCompactorRepair = "compactor.repair"
	SourceBucketRepair    = "bucket.repair"
	SourceBucketRewrite   = "bucket.rewrite"
	SourceBucketUpload    = "bucket.upload"
	SourceTest            = "test"
)

// Meta is a block's meta.json: what Prometheus' TSDB writes and, under
// "thanos", what a bucket needs beside it. A Meta that a Fetcher hands out is
// shared and must not be changed.
type Meta struct {
	ULID       ulid.ULID  `json:"ulid"`
	MinTime    int64      `json:"minTime"` // ms, inclusive
	MaxTime    int64      `json:"maxTime"` // ms, exclusive
	Stats      Stats      `json:"stats"`
	Compaction Compaction `json:"compaction"`
	Version    int        `json:"version"`

	Thanos Thanos `json:"thanos"`
}

// Stats count what is in a block.
type Stats struct {
	NumSamples          uint64 `json:"numSamples,omitempty"`
	NumFloatSamples     uint64 `json:"numFloatSamples,omitempty"`
	NumHistogramSamples uint64 `json:"numHistogramSamples,omitempty"`
	NumSeries           uint64 `json:"numSeries,omitempty"`
	NumChunks           uint64 `json:"numChunks,omitempty"`
	NumTombstones       uint64 `json:"numTombstones,omitempty"`
}

// Compaction tells what a block was made from.
type Compaction struct {
	Level     int         `json:"level"`             // 1: cut from a head
	Sources   []ulid.ULID `json:"sources,omitempty"` // all blocks of level 1 in it
	Deletable bool        `json:"deletable,omitempty"`
	Parents   []Desc      `json:"parents,omitempty"` // the blocks it was compacted from directly
	Failed    bool        `json:"failed,omitempty"`
	Hints     []string    `json:"hints,omitempty"` // such as from-out-of-order
}

// Desc names a block and its time range in ms.
type Desc struct {
	ULID    ulid.ULID `json:"ulid"`
	MinTime int64     `json:"minTime"`
	MaxTime int64     `json:"maxTime"`
}

// Thanos is the section of meta.json that makes a TSDB block a bucket block.
type Thanos struct {
	Version      int               `json:"version,omitempty"` // absent: 1
	Labels       map[string]string `json:"labels"`            // external labels, never empty in a bucket
	Downsample   Downsample        `json:"downsample"`
	Source       string            `json:"source"`
	SegmentFiles []string          `json:"segment_files,omitempty"` // names under chunks/, sorted
	Files        []File            `json:"files,omitempty"`         // sorted by RelPath
	Rewrites     []Rewrite         `json:"rewrites,omitempty"`
	IndexStats   IndexStats        `json:"index_stats"`
	Extensions   json.RawMessage   `json:"extensions,omitempty"`
	UploadTime   time.Time         `json:"upload_time"` // zero where the uploader didn't say
}

// Downsample holds a block's resolution in ms: 0 (raw), 300000 or 3600000.
type Downsample struct {
	Resolution int64 `json:"resolution"`
}

// File is an object of a block. meta.json lists itself without a size.
type File struct {
	RelPath   string    `json:"rel_path"`
	SizeBytes int64     `json:"size_bytes,omitempty"`
	Hash      *FileHash `json:"hash,omitempty"`
}

// FileHash is the hash of a file's content, in hex.
type FileHash struct {
	Func  string `json:"hashFunc"` // SHA256
	Value string `json:"value"`
}

// Rewrite records what was done to a block's content. The details belong to
// whoever did it and are kept as they are.
type Rewrite struct {
	Sources          []ulid.ULID       `json:"sources,omitempty"`
	DeletionsApplied []json.RawMessage `json:"deletions_applied,omitempty"`
	RelabelsApplied  []json.RawMessage `json:"relabels_applied,omitempty"`
}

// IndexStats bound the sizes of a block's entries in bytes, so that a reader
// knows how much to fetch. 0 means unknown.
type IndexStats struct {
	SeriesMaxSize int64 `json:"series_max_size,omitempty"`
	ChunkMaxSize  int64 `json:"chunk_max_size,omitempty"`
}

// ParseMeta reads the meta.json of the block id. Unknown keys are ignored. The
// error wraps ErrCorrupt or ErrUnknownVersion.
func ParseMeta(id ulid.ULID, data []byte) (*Meta, error) {
	m := &Meta{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("block %s: meta.json of %d bytes: %w: %w; restore it or remove the block", id, len(data), ErrCorrupt, err)
	}
	if m.Version != tsdbVersion {
		return nil, fmt.Errorf("block %s: meta.json: %w %d, this program reads %d; upgrade it", id, ErrUnknownVersion, m.Version, tsdbVersion)
	}
	if v := m.Thanos.Version; v != 0 && v != thanosVersion {
		return nil, fmt.Errorf("block %s: meta.json: thanos section: %w %d, this program reads %d; upgrade it", id, ErrUnknownVersion, v, thanosVersion)
	}
	if err := m.check(id); err != nil {
		return nil, fmt.Errorf("block %s: meta.json: %w: %w; restore it or remove the block", id, ErrCorrupt, err)
	}
	return m, nil
}

// check refuses what no writer can have meant.
func (m *Meta) check(id ulid.ULID) error {
	if m.ULID != id {
		return fmt.Errorf("it is that of block %s", m.ULID)
	}
	if m.MinTime > m.MaxTime {
		return fmt.Errorf("minTime %d is after maxTime %d", m.MinTime, m.MaxTime)
	}
	for _, f := range m.Thanos.Files {
		if !filepath.IsLocal(filepath.FromSlash(f.RelPath)) || f.SizeBytes < 0 {
			return fmt.Errorf("files: entry %q of %d bytes", f.RelPath, f.SizeBytes)
		}
	}
	for _, s := range m.Thanos.SegmentFiles {
		if s != filepath.Base(s) || !filepath.IsLocal(s) {
			return fmt.Errorf("segment_files: entry %q", s)
		}
	}
	return nil
}

// ReadMeta reads dir/meta.json of a local block, whose folder is named by its
// ULID. Without the file the error wraps ErrPartial.
func ReadMeta(dir string) (*Meta, error) {
	id, ok := ParseID(filepath.Base(dir))
	if !ok {
		return nil, fmt.Errorf("block %s: %w: the folder's name is no ULID", dir, ErrCorrupt)
	}
	data, err := os.ReadFile(filepath.Join(dir, MetaFilename))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("block %s: %w: %w", id, ErrPartial, err)
	}
	if err != nil {
		return nil, fmt.Errorf("block %s: read meta: %w", id, err)
	}
	return ParseMeta(id, data)
}

// WriteMeta writes dir/meta.json atomically.
func WriteMeta(dir string, m *Meta) error {
	data, err := m.Encode()
	if err != nil {
		return err
	}
	return WriteFile(filepath.Join(dir, MetaFilename), data)
}

// Encode returns the bytes of meta.json, indented by tabs as Prometheus writes
// it and ending in a newline. Files and segment files come out sorted.
func (m *Meta) Encode() ([]byte, error) {
	c := *m
	if c.Thanos.Labels == nil {
		c.Thanos.Labels = map[string]string{}
	}
	c.Thanos.SegmentFiles = slices.Sorted(slices.Values(c.Thanos.SegmentFiles))
	c.Thanos.Files = slices.SortedFunc(slices.Values(c.Thanos.Files), func(a, b File) int {
		return strings.Compare(a.RelPath, b.RelPath)
	})
	data, err := encodeJSON(&c)
	if err != nil {
		return nil, fmt.Errorf("block %s: encode meta: %w", m.ULID, err)
	}
	return data, nil
}

// Labels returns the external labels.
func (m *Meta) Labels() labels.Labels { return labels.FromMap(m.Thanos.Labels) }

// Resolution returns the block's resolution in ms; 0 is raw.
func (m *Meta) Resolution() int64 { return m.Thanos.Downsample.Resolution }

// GroupKey names the group that the block is compacted and deduplicated in:
// "<resolution>@<hash of the external labels>", as Thanos builds it.
func (m *Meta) GroupKey() string {
	return fmt.Sprintf("%d@%d", m.Resolution(), m.Labels().Hash())
}

// Uploaded returns when the block became visible: upload_time or, from writers
// that don't give it, the time in the ULID.
func (m *Meta) Uploaded() time.Time {
	if !m.Thanos.UploadTime.IsZero() {
		return m.Thanos.UploadTime
	}
	return idTime(m.ULID)
}

// Overlaps tells whether the block has data in [mint, maxt], ms, both inclusive.
func (m *Meta) Overlaps(mint, maxt int64) bool { return m.MinTime <= maxt && mint < m.MaxTime }

// SizeBytes sums the sizes in files; 0 where the writer didn't give them.
func (m *Meta) SizeBytes() int64 {
	var sum int64
	for _, f := range m.Thanos.Files {
		if sum > math.MaxInt64-f.SizeBytes {
			return math.MaxInt64
		}
		sum += f.SizeBytes
	}
	return sum
}

// compareAge orders metas from old to new data.
func compareAge(a, b *Meta) int {
	switch {
	case a.MinTime != b.MinTime:
		return cmp.Compare(a.MinTime, b.MinTime)
	case a.MaxTime != b.MaxTime:
		return cmp.Compare(a.MaxTime, b.MaxTime)
	}
	return a.ULID.Compare(b.ULID)
}

func idTime(id ulid.ULID) time.Time { return time.UnixMilli(int64(id.Time())).UTC() }

// encodeJSON writes v as Thanos writes its files, indented by tabs.
func encodeJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetIndent("", "\t")
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

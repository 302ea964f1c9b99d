package block

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
)

// The content of a manifest or an announcement is a row of columns, each with
// its length before it, so that like stands beside like and compresses well:
//
//	head      generation, time of the listing, what was folded; or the changes
//	ids       every ULID that is mentioned, sorted: milliseconds since the one before
//	entropy   and their last 10 bytes
//	strings   every string that is mentioned, in order of their first mention
//	lists     label sets, lists of names, lists of ULIDs, each written once
//	shape     for each block: which of the above, flags, level, versions
//	times, stats, sizes, hashes, uploads, objects    for each block, its numbers
//	rest      parents and rewrites; marks; problems; partial blocks
//
// docs/formats/manifest.md draws each. A reference to something optional is one
// more than its number; 0 is none.
const (
	colHead = iota
	colIDs
	colEntropy
	colStrings
	colLists
	colShape
	colTimes
	colStats
	colSizes
	colHashes
	colUploads
	colObjects
	colRest
	columns
)

// Flags of a block, in the order of flags.
const (
	flagDeletable = 1 << iota
	flagFailed
	flagHashes     // some file has a hash
	flagRewrites   // there is a list of rewrites
	flagUploadTime // it isn't zero
	flagUploadZone // and isn't in UTC
	flagVersion    // its meta.json's is known
)

// Which marks a block has, and of which of them the versions are known, in the order of marks.
const (
	bitDeletion = 1 << iota
	bitNoCompact
	bitNoDownsample
	bitVersionDeletion
	bitVersionNoCompact
	bitVersionNoDownsample
)

// Kinds of changes.
const (
	changeMeta = iota + 1
	changeMarks
	changeRemoved
)

// Kinds of problems.
const (
	problemOther = iota
	problemCorrupt
	problemVersion
)

// Forms of a file's hash.
const (
	hashNone = iota
	hashHex  // 32 bytes that are written in hex
	hashText
)

// encodeManifest returns the bytes of firnline/manifest. Equal manifests give equal bytes.
func encodeManifest(m *Manifest) ([]byte, error) {
	w := newManifestWriter()
	for _, meta := range m.Metas {
		w.mention(meta)
	}
	w.mentionAll(m.Folded, slices.Collect(maps.Keys(m.Marks)), slices.Collect(maps.Keys(m.Problems)), slices.Collect(maps.Keys(m.Partial)))
	w.sortIDs()

	w.uint(colHead, uint64(m.Generation))
	w.time(colHead, m.ListedAt)
	w.ids(colHead, m.Folded)
	w.uint(colHead, uint64(len(m.Metas)))
	for _, id := range sortedIDs(m.Metas) {
		w.block(m.Metas[id], m.versions[id].meta)
	}
	w.marksOf(m)
	w.uint(colRest, uint64(len(m.Problems)))
	for _, id := range sortedIDs(m.Problems) {
		w.id(colRest, id)
		w.problem(m.Problems[id])
	}
	w.uint(colRest, uint64(len(m.Partial)))
	for _, id := range sortedIDs(m.Partial) {
		w.id(colRest, id)
		w.time(colRest, m.Partial[id])
	}
	return manifestFrame().Seal(w.content())
}

func (w *manifestWriter) marksOf(m *Manifest) {
	w.uint(colRest, uint64(len(m.Marks)))
	for _, id := range sortedIDs(m.Marks) {
		w.id(colRest, id)
		w.marks(id, m.Marks[id], m.versions[id])
	}
}

// encodeChanges returns the bytes of an announcement.
func encodeChanges(changes []Change) ([]byte, error) {
	w := newManifestWriter()
	for _, c := range changes {
		w.mentionAll([]ulid.ULID{c.Block})
		if c.Meta != nil {
			w.mention(c.Meta)
		}
	}
	w.sortIDs()
	w.uint(colHead, uint64(len(changes)))
	for _, c := range changes {
		switch {
		case c.Meta != nil:
			w.uint(colHead, changeMeta)
			w.block(c.Meta, version{})
		case c.Marks != nil:
			w.uint(colHead, changeMarks)
			w.id(colHead, c.Block)
			w.marks(c.Block, *c.Marks, versions{})
		default:
			w.uint(colHead, changeRemoved)
			w.id(colHead, c.Block)
		}
	}
	return changesFrame().Seal(w.content())
}

func sortedIDs[T any](m map[ulid.ULID]T) []ulid.ULID {
	return slices.SortedFunc(maps.Keys(m), ulid.ULID.Compare)
}

// manifestWriter collects columns. All ULIDs are mentioned before anything is
// written, since they are referred to by their rank.
type manifestWriter struct {
	cols    [columns][]byte
	rank    map[ulid.ULID]uint64
	strings map[string]uint64
	lists   map[string]uint64 // by their bytes in colLists
	prev    struct {
		id      uint64
		minTime int64
	}
}

func newManifestWriter() *manifestWriter {
	return &manifestWriter{rank: map[ulid.ULID]uint64{}, strings: map[string]uint64{}, lists: map[string]uint64{}}
}

func (w *manifestWriter) mention(m *Meta) {
	w.rank[m.ULID] = 0
	w.mentionAll(m.Compaction.Sources)
	for _, p := range m.Compaction.Parents {
		w.rank[p.ULID] = 0
	}
	for _, r := range m.Thanos.Rewrites {
		w.mentionAll(r.Sources)
	}
}

func (w *manifestWriter) mentionAll(lists ...[]ulid.ULID) {
	for _, ids := range lists {
		for _, id := range ids {
			w.rank[id] = 0
		}
	}
}

func (w *manifestWriter) sortIDs() {
	var last uint64
	for i, id := range sortedIDs(w.rank) {
		w.rank[id] = uint64(i)
		w.uint(colIDs, id.Time()-last)
		last = id.Time()
		w.cols[colEntropy] = append(w.cols[colEntropy], id.Entropy()...)
	}
}

// content puts the columns together.
func (w *manifestWriter) content() []byte {
	var out []byte
	for _, c := range w.cols {
		out = binary.AppendUvarint(out, uint64(len(c)))
	}
	return append(out, slices.Concat(w.cols[:]...)...)
}

func (w *manifestWriter) uint(col int, v uint64) { w.cols[col] = binary.AppendUvarint(w.cols[col], v) }
func (w *manifestWriter) int(col int, v int64)   { w.cols[col] = binary.AppendVarint(w.cols[col], v) }

func (w *manifestWriter) time(col int, t time.Time) {
	w.int(col, t.Unix())
	w.uint(col, uint64(t.Nanosecond()))
}

func (w *manifestWriter) id(col int, id ulid.ULID) { w.uint(col, w.rank[id]) }

func (w *manifestWriter) ids(col int, ids []ulid.ULID) {
	w.cols[col] = w.appendIDs(w.cols[col], ids)
}

// appendIDs writes each rank as its distance from the one before.
func (w *manifestWriter) appendIDs(b []byte, ids []ulid.ULID) []byte {
	b = binary.AppendUvarint(b, uint64(len(ids)))
	var last int64
	for _, id := range ids {
		r := int64(w.rank[id])
		b = binary.AppendVarint(b, r-last)
		last = r
	}
	return b
}

// string refers to a string, writing it at its first mention.
func (w *manifestWriter) string(s string) uint64 {
	n, ok := w.strings[s]
	if !ok {
		n = uint64(len(w.strings))
		w.strings[s] = n
		w.uint(colStrings, uint64(len(s)))
		w.cols[colStrings] = append(w.cols[colStrings], s...)
	}
	return n
}

// Kinds of lists.
const (
	listLabels = iota
	listNames
	listIDs
)

// list refers to a list by one more than its number, writing it at its first mention.
func (w *manifestWriter) list(kind byte, body []byte) uint64 {
	key := string(append([]byte{kind}, body...))
	n, ok := w.lists[key]
	if !ok {
		n = uint64(len(w.lists))
		w.lists[key] = n
		w.cols[colLists] = append(w.cols[colLists], key...)
	}
	return n + 1
}

func (w *manifestWriter) labels(lset map[string]string) uint64 {
	if lset == nil {
		return 0
	}
	body := binary.AppendUvarint(nil, uint64(len(lset)))
	for _, name := range slices.Sorted(maps.Keys(lset)) {
		body = binary.AppendUvarint(body, w.string(name))
		body = binary.AppendUvarint(body, w.string(lset[name]))
	}
	return w.list(listLabels, body)
}

func (w *manifestWriter) names(names []string) uint64 {
	if names == nil {
		return 0
	}
	body := binary.AppendUvarint(nil, uint64(len(names)))
	for _, n := range names {
		body = binary.AppendUvarint(body, w.string(n))
	}
	return w.list(listNames, body)
}

func (w *manifestWriter) sources(ids []ulid.ULID) uint64 {
	if ids == nil {
		return 0
	}
	return w.list(listIDs, w.appendIDs(nil, ids))
}

// block writes what is in a meta.json.
func (w *manifestWriter) block(m *Meta, v version) {
	rank := w.rank[m.ULID]
	w.int(colShape, int64(rank-w.prev.id))
	w.prev.id = rank
	w.uint(colShape, w.flags(m, v))
	w.int(colShape, int64(m.Version))
	w.int(colShape, int64(m.Thanos.Version))
	w.int(colShape, int64(m.Compaction.Level))
	w.int(colShape, m.Thanos.Downsample.Resolution)
	w.uint(colShape, w.blockSources(m))
	w.uint(colShape, w.names(m.Compaction.Hints))
	w.uint(colShape, w.labels(m.Thanos.Labels))
	w.uint(colShape, w.string(m.Thanos.Source))
	w.uint(colShape, w.names(m.Thanos.SegmentFiles))
	w.uint(colShape, w.raw(m.Thanos.Extensions))

	w.int(colTimes, m.MinTime-w.prev.minTime)
	w.int(colTimes, m.MaxTime-m.MinTime)
	w.prev.minTime = m.MinTime

	s := m.Stats
	w.int(colStats, int64(s.NumSamples-s.NumFloatSamples-s.NumHistogramSamples))
	for _, n := range []uint64{s.NumFloatSamples, s.NumHistogramSamples, s.NumSeries, s.NumChunks, s.NumTombstones} {
		w.uint(colStats, n)
	}
	w.int(colStats, m.Thanos.IndexStats.SeriesMaxSize)
	w.int(colStats, m.Thanos.IndexStats.ChunkMaxSize)
	w.files(m.Thanos.Files)
	w.uploaded(m, v)
	w.history(m)
}

// blockSources is a reference to the list of a block's sources. That of itself
// alone, which most blocks have, is 1; others follow.
func (w *manifestWriter) blockSources(m *Meta) uint64 {
	ref := uint64(1)
	if s := m.Compaction.Sources; len(s) != 1 || s[0] != m.ULID {
		if ref = w.sources(s); ref > 0 {
			ref++
		}
	}
	return ref
}

func (w *manifestWriter) raw(data []byte) uint64 {
	if data == nil {
		return 0
	}
	return w.string(string(data)) + 1
}

func (w *manifestWriter) flags(m *Meta, v version) uint64 {
	_, zone := m.Thanos.UploadTime.Zone()
	hashed := slices.ContainsFunc(m.Thanos.Files, func(f File) bool { return f.Hash != nil })
	return bits(m.Compaction.Deletable, m.Compaction.Failed, hashed, m.Thanos.Rewrites != nil,
		!m.Thanos.UploadTime.IsZero(), zone != 0, v != version{})
}

// bits packs flags, the first into the lowest bit.
func bits(flags ...bool) uint64 {
	var out uint64
	for i, set := range flags {
		if set {
			out |= 1 << i
		}
	}
	return out
}

func (w *manifestWriter) files(files []File) {
	var names []string
	if files != nil {
		names = make([]string, len(files))
	}
	for i, f := range files {
		names[i] = f.RelPath
		w.int(colSizes, f.SizeBytes)
	}
	w.uint(colShape, w.names(names))
	if !slices.ContainsFunc(files, func(f File) bool { return f.Hash != nil }) {
		return
	}
	for _, f := range files {
		w.hash(f.Hash)
	}
}

func (w *manifestWriter) hash(h *FileHash) {
	if h == nil {
		w.uint(colHashes, hashNone)
		return
	}
	raw, err := hex.DecodeString(h.Value)
	if err != nil || len(raw) != hashBytes || hex.EncodeToString(raw) != h.Value {
		w.uint(colHashes, hashText)
		w.uint(colHashes, w.string(h.Func))
		w.uint(colHashes, w.string(h.Value))
		return
	}
	w.uint(colHashes, hashHex)
	w.uint(colHashes, w.string(h.Func))
	w.cols[colHashes] = append(w.cols[colHashes], raw...)
}

// hashBytes is the length of a SHA-256.
const hashBytes = 32

// uploaded writes upload_time, as its distance from the time in the ULID, and
// the version of meta.json, which was written at about that time.
func (w *manifestWriter) uploaded(m *Meta, v version) {
	t := m.Thanos.UploadTime
	base := idTime(m.ULID).Unix()
	if !t.IsZero() {
		w.int(colUploads, t.Unix()-base)
		w.uint(colUploads, uint64(t.Nanosecond()))
		base = t.Unix()
	}
	if _, zone := t.Zone(); zone != 0 {
		w.int(colUploads, int64(zone))
	}
	if v != (version{}) {
		w.version(v, base)
	}
}

func (w *manifestWriter) version(v version, base int64) {
	w.int(colObjects, v.sizeBytes)
	w.int(colObjects, v.seconds-base)
}

// history writes parents and rewrites.
func (w *manifestWriter) history(m *Meta) {
	// One more than their number, so that no list and an empty one differ.
	n := uint64(0)
	if m.Compaction.Parents != nil {
		n = uint64(len(m.Compaction.Parents)) + 1
	}
	w.uint(colRest, n)
	for _, p := range m.Compaction.Parents {
		w.id(colRest, p.ULID)
		w.int(colRest, p.MinTime-m.MinTime)
		w.int(colRest, p.MaxTime-p.MinTime)
	}
	if m.Thanos.Rewrites == nil {
		return
	}
	w.uint(colRest, uint64(len(m.Thanos.Rewrites)))
	for _, r := range m.Thanos.Rewrites {
		w.uint(colRest, w.sources(r.Sources))
		for _, list := range [][]json.RawMessage{r.DeletionsApplied, r.RelabelsApplied} {
			w.rawList(list)
		}
	}
}

func (w *manifestWriter) rawList(list []json.RawMessage) {
	if list == nil {
		w.uint(colRest, 0)
		return
	}
	w.uint(colRest, uint64(len(list))+1)
	for _, data := range list {
		w.uint(colRest, w.raw(data))
	}
}

// marks writes the marks of a block. The ULIDs in them are the block's, their
// version is the one that this program reads; neither is written.
func (w *manifestWriter) marks(id ulid.ULID, m Marks, v versions) {
	w.uint(colRest, bits(m.Deletion != nil, m.NoCompact != nil, m.NoDownsample != nil,
		v.deletion != version{}, v.noCompact != version{}, v.noDownsample != version{}))
	base := idTime(id).Unix()
	mark := func(seconds int64, details, reason string) {
		w.int(colRest, seconds-base)
		w.uint(colRest, w.string(details))
		w.uint(colRest, w.string(reason))
	}
	if d := m.Deletion; d != nil {
		mark(d.DeletionTime, d.Details, "")
	}
	if n := m.NoCompact; n != nil {
		mark(n.NoCompactTime, n.Details, n.Reason)
	}
	if n := m.NoDownsample; n != nil {
		mark(n.NoDownsampleTime, n.Details, n.Reason)
	}
	for _, v := range []version{v.deletion, v.noCompact, v.noDownsample} {
		if v != (version{}) {
			w.version(v, base)
		}
	}
}

// problem writes an error as its text and what it is about.
func (w *manifestWriter) problem(err error) {
	kind := uint64(problemOther)
	switch {
	case errors.Is(err, ErrCorrupt):
		kind = problemCorrupt
	case errors.Is(err, ErrUnknownVersion):
		kind = problemVersion
	}
	w.uint(colRest, kind)
	w.uint(colRest, w.string(err.Error()))
}

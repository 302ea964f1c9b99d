package block

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
)

// maxManifestBlocks bounds what a manifest is made into: a Meta takes far more
// memory than the few bytes that a hostile one may be written in. Everything
// else in one takes at most some 50 times its bytes.
const maxManifestBlocks = 1 << 20

// decodeManifest reads what encodeManifest has written. The metas share what is
// equal among them: labels, names, lists of sources. The error wraps ErrCorrupt
// or ErrUnknownVersion.
func decodeManifest(data []byte) (*Manifest, error) {
	content, err := manifestFrame().Unseal(data)
	if err != nil {
		return nil, err
	}
	return readContent(content, (*manifestReader).manifest)
}

// decodeChanges reads what encodeChanges has written.
func decodeChanges(data []byte) ([]Change, error) {
	content, err := changesFrame().Unseal(data)
	if err != nil {
		return nil, err
	}
	return readContent(content, (*manifestReader).changes)
}

// readContent splits content into columns, reads the tables and then, by read,
// all that refers to them.
func readContent[T any](content []byte, read func(*manifestReader) T) (T, error) {
	r := &manifestReader{raws: map[uint64]json.RawMessage{}}
	r.split(content)
	r.readIDs()
	r.readStrings()
	r.readLists()
	out := read(r)
	for i := range r.cols {
		if c := &r.cols[i]; r.err == nil && c.off < len(c.data) {
			r.fail(i, "%d bytes too many", len(c.data)-c.off)
		}
	}
	if r.err != nil {
		var none T
		return none, r.err
	}
	return out, nil
}

// manifestReader reads columns. After the first error, which is kept, every
// reading gives zeros; whoever loops asks for a count first, which is never
// larger than the bytes that are left.
type manifestReader struct {
	cols    [columns]column
	err     error
	ids     []ulid.ULID
	strings []string
	raws    map[uint64]json.RawMessage // by string, so that many mentions take memory once
	lists   []manifestList
	prev    struct {
		id      uint64
		minTime int64
	}
}

type column struct {
	data  []byte
	off   int
	start int // in the content, for errors
}

// manifestList is one entry of the lists; one of its fields is set.
type manifestList struct {
	labels map[string]string
	names  []string
	ids    []ulid.ULID
}

func (r *manifestReader) fail(col int, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: column %d, offset %d of the content: %s", ErrCorrupt, col, r.cols[col].start+r.cols[col].off, fmt.Sprintf(format, args...))
	}
}

func (r *manifestReader) split(content []byte) {
	r.cols[0].data = content
	var sizes [columns]int
	for i := range sizes {
		sizes[i] = r.count(0, 1)
	}
	off := r.cols[0].off
	if r.err != nil {
		return
	}
	for i, size := range sizes {
		if size > len(content)-off {
			r.cols[0] = column{}
			r.fail(i, "column of %d bytes", size)
			return
		}
		r.cols[i] = column{data: content[off : off+size], start: off}
		off += size
	}
	if off != len(content) {
		r.fail(colRest, "%d bytes behind the columns", len(content)-off)
	}
}

func (r *manifestReader) uint(col int) uint64 {
	c := &r.cols[col]
	v, n := binary.Uvarint(c.data[c.off:])
	if n <= 0 || r.err != nil {
		r.fail(col, "bad number")
		return 0
	}
	c.off += n
	return v
}

func (r *manifestReader) int(col int) int64 {
	v := r.uint(col)
	return int64(v>>1) ^ -int64(v&1)
}

func (r *manifestReader) bytes(col, n int) []byte {
	c := &r.cols[col]
	if n > len(c.data)-c.off || r.err != nil {
		r.fail(col, "%d bytes are missing", n)
		return nil
	}
	c.off += n
	return c.data[c.off-n : c.off]
}

// count reads how many things of at least size bytes follow in the column.
func (r *manifestReader) count(col, size int) int { return r.checked(col, r.uint(col), size) }

// countOrNone is count for a list that may be none, whose length is written as
// one more than it is.
func (r *manifestReader) countOrNone(col, size int) (n int, some bool) {
	more := r.uint(col)
	if more == 0 {
		return 0, false
	}
	return r.checked(col, more-1, size), true
}

func (r *manifestReader) checked(col int, n uint64, size int) int {
	if left := uint64(len(r.cols[col].data) - r.cols[col].off); n > left/uint64(size) {
		r.fail(col, "%d entries in %d bytes", n, left)
		return 0
	}
	return int(n)
}

func (r *manifestReader) more(col int) bool {
	return r.err == nil && r.cols[col].off < len(r.cols[col].data)
}

func (r *manifestReader) readIDs() {
	n := len(r.cols[colEntropy].data) / ulidEntropyBytes
	r.ids = make([]ulid.ULID, 0, min(n, len(r.cols[colIDs].data)))
	var ms uint64
	for r.more(colIDs) {
		ms += r.uint(colIDs)
		var id ulid.ULID
		if err := id.SetTime(ms); err != nil {
			r.fail(colIDs, "time %d", ms)
		}
		copy(id[len(id)-ulidEntropyBytes:], r.bytes(colEntropy, ulidEntropyBytes))
		r.ids = append(r.ids, id)
	}
}

const ulidEntropyBytes = 10

func (r *manifestReader) readStrings() {
	// One string that all others are parts of, so that they are one allocation.
	all := string(r.cols[colStrings].data)
	for r.more(colStrings) {
		n := r.count(colStrings, 1)
		end := r.cols[colStrings].off + n
		r.strings = append(r.strings, all[end-n:end])
		r.bytes(colStrings, n)
	}
}

func (r *manifestReader) readLists() {
	for r.more(colLists) {
		var l manifestList
		switch kind := r.uint(colLists); kind {
		case listLabels:
			n := r.count(colLists, 2)
			l.labels = make(map[string]string, n)
			for range n {
				name := r.string(colLists)
				l.labels[name] = r.string(colLists)
			}
		case listNames:
			l.names = make([]string, r.count(colLists, 1))
			for i := range l.names {
				l.names[i] = r.string(colLists)
			}
		case listIDs:
			l.ids = r.idList(colLists)
		default:
			r.fail(colLists, "list of kind %d", kind)
		}
		r.lists = append(r.lists, l)
	}
}

func (r *manifestReader) id(col int) ulid.ULID { return r.idOf(col, r.uint(col)) }

func (r *manifestReader) idOf(col int, rank uint64) ulid.ULID {
	if rank >= uint64(len(r.ids)) {
		r.fail(col, "ULID %d of %d", rank, len(r.ids))
		return ulid.ULID{}
	}
	return r.ids[rank]
}

func (r *manifestReader) idList(col int) []ulid.ULID {
	out := make([]ulid.ULID, r.count(col, 1))
	var rank uint64
	for i := range out {
		rank += uint64(r.int(col))
		out[i] = r.idOf(col, rank)
	}
	return out
}

func (r *manifestReader) string(col int) string { return r.stringOf(col, r.uint(col)) }

func (r *manifestReader) stringOf(col int, n uint64) string {
	if n >= uint64(len(r.strings)) {
		r.fail(col, "string %d of %d", n, len(r.strings))
		return ""
	}
	return r.strings[n]
}

// list returns the list that is referred to by ref, which is not 0.
func (r *manifestReader) list(col int, ref uint64) manifestList {
	if ref-1 >= uint64(len(r.lists)) {
		r.fail(col, "list %d of %d", ref-1, len(r.lists))
		return manifestList{}
	}
	return r.lists[ref-1]
}

func (r *manifestReader) labels(col int) map[string]string {
	ref := r.uint(col)
	if ref == 0 {
		return nil
	}
	l := r.list(col, ref).labels
	if l == nil {
		r.fail(col, "list %d has no labels", ref-1)
	}
	return l
}

func (r *manifestReader) names(col int) []string {
	ref := r.uint(col)
	if ref == 0 {
		return nil
	}
	l := r.list(col, ref).names
	if l == nil {
		r.fail(col, "list %d has no names", ref-1)
	}
	return l
}

func (r *manifestReader) sources(col int, ref uint64) []ulid.ULID {
	if ref == 0 {
		return nil
	}
	l := r.list(col, ref).ids
	if l == nil {
		r.fail(col, "list %d has no ULIDs", ref-1)
	}
	return l
}

func (r *manifestReader) raw(col int) json.RawMessage {
	ref := r.uint(col)
	if ref == 0 {
		return nil
	}
	data, ok := r.raws[ref]
	if !ok {
		data = json.RawMessage(r.stringOf(col, ref-1))
		r.raws[ref] = data
	}
	return data
}

func (r *manifestReader) time(col int) time.Time {
	s := r.int(col)
	return r.moment(col, s, r.uint(col))
}

// moment makes a time, which can be written into a meta.json again.
func (r *manifestReader) moment(col int, s int64, ns uint64) time.Time {
	t := time.Unix(s, int64(ns%uint64(time.Second))).UTC()
	if y := t.Year(); ns >= uint64(time.Second) || y < 0 || y > 9999 {
		r.fail(col, "time of %d s and %d ns", s, ns)
		return time.Time{}
	}
	return t
}

func (r *manifestReader) manifest() *Manifest {
	m := newManifest()
	m.Generation = int64(r.uint(colHead))
	m.ListedAt = r.time(colHead)
	m.Folded = r.idList(colHead)
	if !slices.IsSortedFunc(m.Folded, ulid.ULID.Compare) {
		r.fail(colHead, "announcements out of order")
	}
	n := r.uint(colHead)
	if n > maxManifestBlocks {
		r.fail(colHead, "%d blocks, %d are the most", n, maxManifestBlocks)
	}
	for r.more(colShape) && uint64(len(m.Metas)) < n {
		meta, v := r.block()
		m.Metas[meta.ULID] = meta
		put(m.versions, meta.ULID, versions{meta: v}, v != version{})
	}
	if uint64(len(m.Metas)) != n {
		r.fail(colShape, "%d blocks of %d", len(m.Metas), n)
	}
	for range r.count(colRest, 2) {
		id := r.id(colRest)
		marks, v := r.marks(id)
		v.meta = m.versions[id].meta
		m.Marks[id] = marks
		put(m.versions, id, v, v != versions{})
	}
	for range r.count(colRest, 3) {
		id := r.id(colRest)
		m.Problems[id] = r.problem()
	}
	for range r.count(colRest, 3) {
		id := r.id(colRest)
		m.Partial[id] = r.time(colRest)
	}
	return m
}

func (r *manifestReader) changes() []Change {
	out := make([]Change, 0, min(r.count(colHead, 1), maxChanges))
	for range cap(out) {
		var c Change
		switch kind := r.uint(colHead); kind {
		case changeMeta:
			c.Meta, _ = r.block()
			c.Block = c.Meta.ULID
		case changeMarks:
			c.Block = r.id(colHead)
			marks, _ := r.marks(c.Block)
			c.Marks = &marks
		case changeRemoved:
			c.Block, c.Removed = r.id(colHead), true
		default:
			r.fail(colHead, "change of kind %d", kind)
		}
		if r.err != nil {
			return nil
		}
		out = append(out, c)
	}
	return out
}

// block reads a meta and checks it as ParseMeta does.
func (r *manifestReader) block() (*Meta, version) {
	m := &Meta{}
	r.prev.id += uint64(r.int(colShape))
	m.ULID = r.idOf(colShape, r.prev.id)
	flags := r.uint(colShape)
	r.shape(m)
	m.Compaction.Deletable = flags&flagDeletable != 0
	m.Compaction.Failed = flags&flagFailed != 0

	m.MinTime = r.prev.minTime + r.int(colTimes)
	m.MaxTime = m.MinTime + r.int(colTimes)
	r.prev.minTime = m.MinTime
	r.stats(m)
	r.files(m, flags&flagHashes != 0)
	v := r.uploaded(m, flags)
	r.history(m, flags&flagRewrites != 0)
	if r.err == nil {
		if err := m.check(m.ULID); err != nil {
			r.fail(colShape, "block %s: %v", m.ULID, err)
		}
	}
	return m, v
}

func (r *manifestReader) shape(m *Meta) {
	m.Version = int(r.int(colShape))
	m.Thanos.Version = int(r.int(colShape))
	m.Compaction.Level = int(r.int(colShape))
	m.Thanos.Downsample.Resolution = r.int(colShape)
	switch ref := r.uint(colShape); ref {
	case 0:
	case 1:
		m.Compaction.Sources = []ulid.ULID{m.ULID}
	default:
		m.Compaction.Sources = r.sources(colShape, ref-1)
	}
	m.Compaction.Hints = r.names(colShape)
	m.Thanos.Labels = r.labels(colShape)
	m.Thanos.Source = r.string(colShape)
	m.Thanos.SegmentFiles = r.names(colShape)
	m.Thanos.Extensions = r.raw(colShape)
}

func (r *manifestReader) stats(m *Meta) {
	s := &m.Stats
	s.NumSamples = uint64(r.int(colStats))
	for _, n := range []*uint64{&s.NumFloatSamples, &s.NumHistogramSamples, &s.NumSeries, &s.NumChunks, &s.NumTombstones} {
		*n = r.uint(colStats)
	}
	s.NumSamples += s.NumFloatSamples + s.NumHistogramSamples
	m.Thanos.IndexStats.SeriesMaxSize = r.int(colStats)
	m.Thanos.IndexStats.ChunkMaxSize = r.int(colStats)
}

func (r *manifestReader) files(m *Meta, hashed bool) {
	names := r.names(colShape)
	if names == nil {
		return
	}
	// A size is a byte at least; a list of names may be mentioned any number of times.
	if left := len(r.cols[colSizes].data) - r.cols[colSizes].off; len(names) > left {
		r.fail(colSizes, "%d files in %d bytes", len(names), left)
		return
	}
	m.Thanos.Files = make([]File, len(names))
	for i, name := range names {
		m.Thanos.Files[i] = File{RelPath: name, SizeBytes: r.int(colSizes)}
	}
	if !hashed {
		return
	}
	for i := range m.Thanos.Files {
		m.Thanos.Files[i].Hash = r.hash()
	}
}

func (r *manifestReader) hash() *FileHash {
	switch form := r.uint(colHashes); form {
	case hashNone:
		return nil
	case hashHex:
		f := r.string(colHashes)
		return &FileHash{Func: f, Value: hex.EncodeToString(r.bytes(colHashes, hashBytes))}
	case hashText:
		f := r.string(colHashes)
		return &FileHash{Func: f, Value: r.string(colHashes)}
	default:
		r.fail(colHashes, "hash of form %d", form)
		return nil
	}
}

func (r *manifestReader) uploaded(m *Meta, flags uint64) version {
	base := idTime(m.ULID).Unix()
	if flags&flagUploadTime != 0 {
		base += r.int(colUploads)
		m.Thanos.UploadTime = r.moment(colUploads, base, r.uint(colUploads))
	}
	if flags&flagUploadZone != 0 {
		zone := r.int(colUploads)
		if zone <= -dayInSeconds || zone >= dayInSeconds {
			r.fail(colUploads, "time zone of %d s", zone)
		}
		m.Thanos.UploadTime = m.Thanos.UploadTime.In(time.FixedZone("", int(zone)))
	}
	if flags&flagVersion == 0 {
		return version{}
	}
	return r.version(base)
}

const dayInSeconds = 24 * 60 * 60

func (r *manifestReader) version(base int64) version {
	size := r.int(colObjects)
	return version{sizeBytes: size, seconds: base + r.int(colObjects)}
}

func (r *manifestReader) history(m *Meta, rewritten bool) {
	if n, some := r.countOrNone(colRest, 3); some {
		m.Compaction.Parents = make([]Desc, n)
	}
	for i := range m.Compaction.Parents {
		d := &m.Compaction.Parents[i]
		d.ULID = r.id(colRest)
		d.MinTime = m.MinTime + r.int(colRest)
		d.MaxTime = d.MinTime + r.int(colRest)
	}
	if !rewritten {
		return
	}
	m.Thanos.Rewrites = make([]Rewrite, r.count(colRest, 3))
	for i := range m.Thanos.Rewrites {
		m.Thanos.Rewrites[i] = Rewrite{
			Sources:          r.sources(colRest, r.uint(colRest)),
			DeletionsApplied: r.rawList(),
			RelabelsApplied:  r.rawList(),
		}
	}
}

func (r *manifestReader) rawList() []json.RawMessage {
	n, some := r.countOrNone(colRest, 1)
	if !some {
		return nil
	}
	out := make([]json.RawMessage, n)
	for i := range out {
		out[i] = r.raw(colRest)
	}
	return out
}

func (r *manifestReader) marks(id ulid.ULID) (Marks, versions) {
	var m Marks
	var v versions
	has := r.uint(colRest)
	base := idTime(id).Unix()
	mark := func() (seconds int64, details, reason string) {
		return base + r.int(colRest), r.string(colRest), r.string(colRest)
	}
	if has&bitDeletion != 0 {
		m.Deletion = &DeletionMark{ID: id, Version: markVersion}
		m.Deletion.DeletionTime, m.Deletion.Details, _ = mark()
	}
	if has&bitNoCompact != 0 {
		m.NoCompact = &NoCompactMark{ID: id, Version: markVersion}
		m.NoCompact.NoCompactTime, m.NoCompact.Details, m.NoCompact.Reason = mark()
	}
	if has&bitNoDownsample != 0 {
		m.NoDownsample = &NoDownsampleMark{ID: id, Version: markVersion}
		m.NoDownsample.NoDownsampleTime, m.NoDownsample.Details, m.NoDownsample.Reason = mark()
	}
	if has&bitVersionDeletion != 0 {
		v.deletion = r.version(base)
	}
	if has&bitVersionNoCompact != 0 {
		v.noCompact = r.version(base)
	}
	if has&bitVersionNoDownsample != 0 {
		v.noDownsample = r.version(base)
	}
	return m, v
}

func (r *manifestReader) problem() error {
	kind, text := r.uint(colRest), r.string(colRest)
	switch kind {
	case problemCorrupt:
		return toldProblem{text, ErrCorrupt}
	case problemVersion:
		return toldProblem{text, ErrUnknownVersion}
	}
	return toldProblem{text, nil}
}

// toldProblem is an error that another process has met with.
type toldProblem struct {
	text string
	kind error
}

func (p toldProblem) Error() string { return p.text }
func (p toldProblem) Unwrap() error { return p.kind }

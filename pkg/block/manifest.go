package block

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/oklog/ulid/v2"
)

// Manifest lists the blocks of a bucket in one object, firnline/manifest, so
// that who reads or compacts blocks needs neither a listing nor an object per
// block to start and to stay up to date. Writers announce what they change
// (Announce); a compactor folds that into the list, and now and then compares
// it with a listing (Fetcher.Publish). Nobody trusts it over the blocks, and
// everything works, only slower, where it is missing, stale or wrong.
//
// Its bytes are drawn in docs/formats/manifest.md.
type Manifest struct {
	Generation int64       // one more with each write
	ListedAt   time.Time   // when it was last compared with a listing, by the bucket's clock; see onlyOnce
	Folded     []ulid.ULID // announcements that are in it and may still lie in the bucket; sorted

	Metas    map[ulid.ULID]*Meta
	Marks    map[ulid.ULID]Marks
	Problems map[ulid.ULID]error     // blocks that can't be used
	Partial  map[ulid.ULID]time.Time // blocks without meta.json: when their newest object was written

	versions map[ulid.ULID]versions // of the objects that a listing has shown, so that the next one reads only others
}

// Change is one thing that happened to a block. Exactly one of Meta, Marks and
// Removed is set.
type Change struct {
	Block   ulid.ULID
	Meta    *Meta  // it has become visible
	Marks   *Marks // these are its marks from now on
	Removed bool   // it is gone
}

// ErrNoManifest tells that a bucket has no manifest.
var ErrNoManifest = errors.New("no bucket manifest")

// readManifest reads the bucket's manifest as it was last written, without what
// has been announced since, unless its ETag is still etag: then m is nil. The
// error wraps ErrNoManifest where there is none, ErrCorrupt or ErrUnknownVersion
// where it can't be used.
func readManifest(ctx context.Context, bkt Bucket, etag string) (m *Manifest, newETag string, err error) {
	data, newETag, err := bkt.GetIf(ctx, manifestName, etag)
	switch {
	case err != nil && bkt.IsObjNotFoundErr(err):
		return nil, "", fmt.Errorf("%s: %w", manifestName, ErrNoManifest)
	case err != nil:
		return nil, "", fmt.Errorf("read %s: %w", manifestName, err)
	case etag != "" && newETag == etag:
		return nil, etag, nil
	}
	if m, err = decodeManifest(data); err != nil {
		return nil, newETag, fmt.Errorf("%s of %d bytes: %w", manifestName, len(data), err)
	}
	return m, newETag, nil
}

func newManifest() *Manifest {
	return &Manifest{
		Metas:    map[ulid.ULID]*Meta{},
		Marks:    map[ulid.ULID]Marks{},
		Problems: map[ulid.ULID]error{},
		Partial:  map[ulid.ULID]time.Time{},
		versions: map[ulid.ULID]versions{},
	}
}

// clone copies m so that changes of blocks leave the original as it is.
func (m *Manifest) clone() *Manifest {
	c := *m
	c.Metas, c.Marks = maps.Clone(m.Metas), maps.Clone(m.Marks)
	c.Problems, c.Partial = maps.Clone(m.Problems), maps.Clone(m.Partial)
	c.versions = maps.Clone(m.versions)
	return &c
}

// record is what is known of one block.
type record struct {
	meta     *Meta
	problem  error // why its meta.json can't be used
	marks    Marks
	versions versions
}

// record returns what m says of a block; a nil m knows none.
func (m *Manifest) record(id ulid.ULID) record {
	if m == nil {
		return record{}
	}
	return record{meta: m.Metas[id], problem: m.Problems[id], marks: m.Marks[id], versions: m.versions[id]}
}

// set replaces what m says of a block.
func (m *Manifest) set(id ulid.ULID, r record) {
	put(m.Metas, id, r.meta, r.meta != nil)
	put(m.Problems, id, r.problem, r.problem != nil)
	put(m.Marks, id, r.marks, r.marks != Marks{})
	put(m.versions, id, r.versions, r.versions != versions{})
	if r.meta != nil {
		delete(m.Partial, id)
	}
}

func put[V any](m map[ulid.ULID]V, id ulid.ULID, v V, there bool) {
	if there {
		m[id] = v
	} else {
		delete(m, id)
	}
}

// same tells whether two records say the same. A block never changes, so that
// its meta isn't compared.
func (r record) same(o record) bool {
	return (r.meta == nil) == (o.meta == nil) && text(r.problem) == text(o.problem) &&
		r.versions == o.versions && r.marks.same(o.marks)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// apply does to the manifest what a change says. Doing it twice is harmless.
func (m *Manifest) apply(c Change) {
	r := m.record(c.Block)
	switch {
	case c.Removed:
		r = record{}
		delete(m.Partial, c.Block)
	case c.Meta != nil:
		// A version that isn't known makes the next listing read the object itself.
		r.meta, r.problem, r.versions.meta = c.Meta, nil, version{}
	case c.Marks != nil:
		r.marks, r.versions = *c.Marks, versions{meta: r.versions.meta}
	}
	m.set(c.Block, r)
}

// shows tells whether the manifest lists a block; with leaving it is evidence for judge.
func (m *Manifest) shows(id ulid.ULID) bool { return m.Metas[id] != nil }

func (m *Manifest) leaving(id ulid.ULID) bool { return m.Marks[id].Deletion != nil }

func (m *Manifest) firsthand() bool { return false }

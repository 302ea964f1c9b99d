package block

import (
	"context"
	"errors"
	"fmt"
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
	ListedAt   time.Time   // when it was last compared with a listing, by the bucket's clock
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

// ReadManifest reads a bucket's manifest as it was last written, without what
// has been announced since. The error wraps ErrNoManifest where there is none,
// ErrCorrupt or ErrUnknownVersion where it can't be used.
func ReadManifest(ctx context.Context, bkt Bucket) (*Manifest, error) {
	m, _, err := readManifest(ctx, bkt, "")
	return m, err
}

// readManifest reads the manifest unless its ETag is still etag: then m is nil.
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

// apply does to the manifest what a change says. Doing it twice is harmless.
func (m *Manifest) apply(c Change) {
	switch {
	case c.Removed:
		delete(m.Metas, c.Block)
		delete(m.Marks, c.Block)
		delete(m.Problems, c.Block)
		delete(m.Partial, c.Block)
		delete(m.versions, c.Block)
	case c.Meta != nil:
		m.Metas[c.Block] = c.Meta
		delete(m.Problems, c.Block)
		delete(m.Partial, c.Block)
		// A version that isn't known makes the next listing read the object itself.
		m.setVersion(c.Block, MetaFilename, version{})
	case c.Marks != nil && *c.Marks == Marks{}:
		delete(m.Marks, c.Block)
		m.clearMarkVersions(c.Block)
	case c.Marks != nil:
		m.Marks[c.Block] = *c.Marks
		m.clearMarkVersions(c.Block)
	}
}

func (m *Manifest) setVersion(id ulid.ULID, filename string, v version) {
	all := m.versions[id]
	*all.of(filename) = v
	m.putVersions(id, all)
}

func (m *Manifest) clearMarkVersions(id ulid.ULID) {
	m.putVersions(id, versions{meta: m.versions[id].meta})
}

func (m *Manifest) putVersions(id ulid.ULID, all versions) {
	if all == (versions{}) {
		delete(m.versions, id)
		return
	}
	m.versions[id] = all
}

package block

import (
	"strings"

	"github.com/oklog/ulid/v2"
)

// Names of objects under a block's ULID, relative to it.
const (
	MetaFilename             = "meta.json"
	IndexFilename            = "index"
	ChunksDirname            = "chunks"
	DeletionMarkFilename     = "deletion-mark.json"
	NoCompactMarkFilename    = "no-compact-mark.json"
	NoDownsampleMarkFilename = "no-downsample-mark.json"
)

// Prefixes of what Firnline keeps in a bucket beside blocks. Thanos ignores them.
const (
	ownPrefix    = "firnline/"
	leasesPrefix = ownPrefix + "leases/"
	clockPrefix  = ownPrefix + "clock/"

	manifestName   = ownPrefix + "manifest"
	announcePrefix = ownPrefix + "manifest.d/"
)

// Name returns the name of a block's object: "<ULID>/<rel>". Every such name in
// this program is built here. rel has forward slashes and may be empty, which
// gives the prefix of all of the block's objects.
func Name(id ulid.ULID, rel string) string { return id.String() + "/" + rel }

// SplitName takes apart what Name has built. It is false for everything in a
// bucket that is no part of a block: a first element that is not a ULID in its
// canonical form, a name without a slash, or a path that climbs.
func SplitName(name string) (id ulid.ULID, rel string, ok bool) {
	first, rel, found := strings.Cut(name, "/")
	if !found {
		return ulid.ULID{}, "", false
	}
	if id, ok = ParseID(first); !ok {
		return ulid.ULID{}, "", false
	}
	for part := range strings.SplitSeq(rel, "/") {
		if part == ".." || part == "." {
			return ulid.ULID{}, "", false
		}
	}
	return id, rel, true
}

// ParseID reads a ULID as it stands in a listing or a folder: 26 characters of
// upper case, with an optional slash behind. Only the canonical form counts,
// since any other could not be turned back into the same name.
func ParseID(s string) (ulid.ULID, bool) {
	s = strings.TrimSuffix(s, "/")
	id, err := ulid.ParseStrict(s)
	if err != nil || id.String() != s {
		return ulid.ULID{}, false
	}
	return id, true
}

package block

import (
	"errors"
	"time"

	"github.com/oklog/ulid/v2"
)

// ErrListing marks a listing, or a manifest, that can't be right: it is empty,
// or far shorter than the one before without marks that would explain it. What
// was known before is kept.
var ErrListing = errors.New("the bucket's listing lacks blocks that nothing says were removed")

// sightings remember since when known blocks have been missing.
type sightings map[ulid.ULID]sighting

type sighting struct {
	since time.Time // zero: an earlier process knew the block, or nobody has ever seen it
	// firsthand: the bucket itself lacked it, against which a manifest that
	// lists it says nothing.
	firsthand bool
}

// evidence is what a listing or the manifest says of known blocks.
type evidence interface {
	shows(ulid.ULID) bool   // it is there
	leaving(ulid.ULID) bool // it is being removed, as announced
	firsthand() bool        // the bucket says so, not a manifest
}

// judgement is what follows from evidence for the blocks known before it.
type judgement struct {
	drop  []ulid.ULID // gone as announced
	probe []ulid.ULID // missing twice: gone if a direct read doesn't find them either
	keep  int         // missing, and kept for now
	fault bool        // more are missing at once than may be
}

// shareOfFault is the part of known blocks, one in so many, that may vanish at
// once without marks (RELIABILITY rule 6: 20 %).
const shareOfFault = 5

// judge decides what to do about known blocks that evidence doesn't show. A
// block with a deletion mark may go at once. Any other is kept until it is
// missing for a second time, delay after the first, and even then is only
// proposed for a probe. judge updates s; it reads nothing and can't fail.
func (s sightings) judge(known *Manifest, now evidence, at time.Time, delay time.Duration) judgement {
	var j judgement
	missing := 0
	for id := range known.Metas {
		seen, before := s[id]
		if now.shows(id) {
			switch {
			case !seen.firsthand || now.firsthand():
				delete(s, id)
			case at.Sub(seen.since) >= delay:
				j.probe = append(j.probe, id)
			}
			continue
		}
		if known.Marks[id].Deletion != nil || now.leaving(id) {
			delete(s, id)
			j.drop = append(j.drop, id)
			continue
		}
		missing++
		switch {
		case !before:
			s[id] = sighting{since: at, firsthand: now.firsthand()}
			j.keep++
		case at.Sub(seen.since) < delay:
			j.keep++
		default:
			j.probe = append(j.probe, id)
		}
	}
	j.fault = missing*shareOfFault > len(known.Metas)
	return j
}

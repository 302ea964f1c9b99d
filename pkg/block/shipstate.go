package block

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// ownStateFilename is what the shipper remembers beside the list of shipped blocks.
const ownStateFilename = "firnline.shipper.json"

const shipStateVersion = 1

// shipState is a shipper's memory, in two files that are replaced by rename
// (docs/formats.md, "shipper state"). Both may be lost: the list of shipped
// blocks is then rebuilt from the bucket.
type shipState struct {
	dir, file string // folder of the TSDB; name of the list in it

	shipped map[ulid.ULID]struct{} // what they hold has been verified in the bucket
	unsaved bool                   // the list on disk is another: writing it failed
	own     ownState
}

// shipList is thanos.shipper.json. Prometheus reads it.
type shipList struct {
	Version  int         `json:"version"`
	Uploaded []ulid.ULID `json:"uploaded"`
}

// ownState is firnline.shipper.json.
type ownState struct {
	Version int           `json:"version"`
	Owner   string        `json:"owner"`            // who we are in leases; stays with the folder
	Rebuild bool          `json:"rebuild"`          // the list was lost: ask the bucket about every block
	Labels  []labelsSince `json:"labels,omitempty"` // external labels over time, oldest first
}

// labelsSince are the external labels from a moment on, until the next entry's.
type labelsSince struct {
	Since  int64         `json:"since"` // ms; 0 in the first entry
	Labels labels.Labels `json:"labels"`
}

// readState reads both files. Where the list is missing or torn it first of all
// writes an empty one, since Prometheus compacts everything while there is none.
func readState(dir, file string, newOwner func() string) (*shipState, error) {
	s := &shipState{dir: dir, file: file, shipped: map[ulid.ULID]struct{}{}}
	var list shipList
	lost, err := readJSON(filepath.Join(dir, file), &list, func() int { return list.Version })
	if err != nil {
		return nil, err
	}
	if lost {
		if err := s.saveList(); err != nil {
			return nil, err
		}
	}
	for _, id := range list.Uploaded {
		s.shipped[id] = struct{}{}
	}
	torn, err := readJSON(filepath.Join(dir, ownStateFilename), &s.own, func() int { return s.own.Version })
	if err != nil {
		return nil, err
	}
	if torn || s.own.Owner == "" {
		s.own = ownState{Version: shipStateVersion, Owner: newOwner()}
	}
	s.own.Rebuild = s.own.Rebuild || lost
	if torn || lost {
		return s, s.saveOwn()
	}
	return s, nil
}

// readJSON reads a state file into v. lost tells that it is missing or torn; v
// is then empty. Another version than ours is an error.
func readJSON[T any](path string, v *T, version func() int) (lost bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read shipper state: %w", err)
	}
	if err := json.Unmarshal(data, v); err != nil || version() == 0 {
		*v = *new(T)
		return true, nil //nolint:nilerr // a torn file is as good as none
	}
	if version() != shipStateVersion {
		return false, fmt.Errorf("%s: %w %d, this program reads %d; upgrade it, or remove the file to have it rebuilt from the bucket", path, ErrUnknownVersion, version(), shipStateVersion)
	}
	return false, nil
}

func (s *shipState) has(id ulid.ULID) bool {
	_, ok := s.shipped[id]
	return ok
}

// add lists blocks as shipped.
func (s *shipState) add(ids ...ulid.ULID) error {
	for _, id := range ids {
		s.shipped[id] = struct{}{}
	}
	return s.saveList()
}

// prune forgets shipped blocks that are no longer local, except sources of local
// ones: they tell whether a compacted block holds anything new. It also writes
// the list if that has failed before.
func (s *shipState) prune(local []*Meta) error {
	keep := map[ulid.ULID]struct{}{}
	for _, m := range local {
		keep[m.ULID] = struct{}{}
		for _, id := range m.Sources() {
			keep[id] = struct{}{}
		}
	}
	before := len(s.shipped)
	maps.DeleteFunc(s.shipped, func(id ulid.ULID, _ struct{}) bool {
		_, ok := keep[id]
		return !ok
	})
	if len(s.shipped) == before && !s.unsaved {
		return nil
	}
	return s.saveList()
}

func (s *shipState) saveList() error {
	list := shipList{Version: shipStateVersion, Uploaded: slices.SortedFunc(maps.Keys(s.shipped), ulid.ULID.Compare)}
	if list.Uploaded == nil {
		list.Uploaded = []ulid.ULID{} // Prometheus wants a list
	}
	err := writeJSON(filepath.Join(s.dir, s.file), list)
	s.unsaved = err != nil
	return err
}

func (s *shipState) saveOwn() error { return writeJSON(filepath.Join(s.dir, ownStateFilename), s.own) }

// rebuilt notes that every local block has been compared with the bucket.
func (s *shipState) rebuilt() error {
	if !s.own.Rebuild {
		return nil
	}
	s.own.Rebuild = false
	return s.saveOwn()
}

// observe notes the external labels of now. They hold for blocks cut from now
// on; blocks cut before keep what was in force then, over restarts too. Entries
// that no block after oldest can need are forgotten.
func (s *shipState) observe(lset labels.Labels, now, oldest time.Time) error {
	log := s.own.Labels
	changed := false
	switch n := len(log); {
	case n == 0:
		log, changed = append(log, labelsSince{Labels: lset}), true
	case !labels.Equal(log[n-1].Labels, lset):
		log, changed = append(log, labelsSince{Since: now.UnixMilli(), Labels: lset}), true
	}
	for len(log) > 1 && log[1].Since <= oldest.UnixMilli() {
		log, changed = log[1:], true
	}
	if !changed {
		return nil
	}
	s.own.Labels = slices.Clone(log)
	return s.saveOwn()
}

// labelsOf returns the external labels of a block by when it was cut.
func (s *shipState) labelsOf(id ulid.ULID) labels.Labels {
	log := s.own.Labels
	for i := len(log) - 1; i > 0; i-- {
		if log[i].Since <= int64(id.Time()) {
			return log[i].Labels
		}
	}
	if len(log) == 0 {
		return labels.EmptyLabels()
	}
	return log[0].Labels
}

func writeJSON(path string, v any) error {
	data, err := encodeJSON(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return WriteFile(path, data)
}

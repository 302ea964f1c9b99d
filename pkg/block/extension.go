package block

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// extensionVersion is that of what this program writes under
// thanos.extensions.firnline.
const extensionVersion = 1

// Extension is what this program records of a block in its meta.json, under
// thanos.extensions.firnline, where other programs ignore it. Its zero value
// stands for a block that this program's compactor did not write.
type Extension struct {
	Version int `json:"version"`
	// Block is the block that this is said of. Thanos' compactor hands the
	// extensions of one input on to its results, and of those none of this holds.
	Block ulid.ULID `json:"block"`
	Shard *Shard    `json:"shard,omitempty"` // nil: the whole group
	// Deletes are the delete requests whose samples aren't in the block any more.
	Deletes []ulid.ULID `json:"deletes,omitempty"`
	// Expired are the classes of series that retention took out of the block,
	// as the policy names them.
	Expired []string `json:"expired,omitempty"`
	// Thinned: retention took series out of the block, or of some it was made of.
	// So what was downsampled before can't be made anew from it.
	Thinned bool `json:"thinned,omitempty"`
	// Done are coarser resolutions, in ms, to which all of the block was brought,
	// though no blocks there name all of its sources: of some there was nothing to
	// aggregate, or retention has removed it there since, or is about to.
	Done []int64 `json:"done,omitempty"`
	// ReplicaLabels are the external labels that deduplication took away.
	ReplicaLabels []string `json:"replica_labels,omitempty"`
	// Runs is in how many places the chunks of a series lie, one for each block
	// whose segments were copied; 0: in one.
	Runs int `json:"runs,omitempty"`
}

// InRuns is in how many places the chunks of a series lie, in any block.
func (e *Extension) InRuns() int { return max(e.Runs, 1) }

// Shard says which part of a group's series a block holds: those from From on
// and before To in the order of their labels. The shards of one split hold
// disjoint parts that together are all series.
type Shard struct {
	Split string        `json:"split"` // equal for the shards that were cut together, and for what is compacted from them
	Index int           `json:"index"`
	Count int           `json:"count"`
	From  labels.Labels `json:"from"` // inclusive; empty: from the first
	To    labels.Labels `json:"to"`   // exclusive; empty: to the last
	// Sources are the blocks of level 1 that this is a part of. The block's
	// compaction.sources don't name them, so that no other reader takes one
	// shard for all of them; those of the shard that closes the split do.
	Sources []ulid.ULID `json:"sources,omitempty"`
	// Void are the shards of the split that had no series, by index, so that no
	// blocks are to be missed. The one that closes the split, the last to be
	// written, says so.
	Void []int `json:"void,omitempty"`
	// Within is the shard that was split, without what is said of its blocks; nil:
	// the whole group. So the bounds of a split are known for as long as there is
	// something of its shards, however often these were split again.
	Within *Shard `json:"within,omitempty"`
}

// Contains tells whether a series, without external labels, is in the shard.
// A nil Shard has all.
func (s *Shard) Contains(lset labels.Labels) bool {
	if s == nil {
		return true
	}
	return labels.Compare(lset, s.From) >= 0 && (s.To.IsEmpty() || labels.Compare(lset, s.To) < 0)
}

// Key names the shard within its group; that of nil is empty.
func (s *Shard) Key() string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%s/%d-%d", s.Split, s.Index, s.Count)
}

// Extension reads what this program has recorded of the block. ok is false
// where it has not written it. The error wraps ErrCorrupt or ErrUnknownVersion.
func (m *Meta) Extension() (ext Extension, ok bool, err error) {
	var all struct {
		Firnline *Extension `json:"firnline"`
	}
	if len(m.Thanos.Extensions) == 0 || m.Thanos.Extensions[0] != '{' {
		return Extension{}, false, nil // somebody else's
	}
	if err := json.Unmarshal(m.Thanos.Extensions, &all); err != nil {
		return Extension{}, false, fmt.Errorf("block %s: thanos.extensions.firnline: %w: %w", m.ULID, ErrCorrupt, err)
	}
	if all.Firnline == nil || all.Firnline.Block != m.ULID {
		return Extension{}, false, nil // said of another block: handed on by somebody's compactor
	}
	if all.Firnline.Version != extensionVersion {
		return Extension{}, false, fmt.Errorf("block %s: thanos.extensions.firnline: %w %d, this program knows %d", m.ULID, ErrUnknownVersion, all.Firnline.Version, extensionVersion)
	}
	return *all.Firnline, true, nil
}

// Origins are the blocks of level 1 whose samples may be in the block: those that
// compaction.sources names and those that its shard is a part of. What is kept
// beside a block is named by them. The error is that of Extension.
func (m *Meta) Origins() ([]ulid.ULID, error) {
	ext, _, err := m.Extension()
	if err != nil {
		return nil, err
	}
	out := slices.Clone(m.Sources())
	if ext.Shard != nil {
		out = append(out, ext.Shard.Sources...)
	}
	slices.SortFunc(out, ulid.ULID.Compare)
	return slices.Compact(out), nil
}

// SetExtension records ext in the block's meta, whose ULID must be set; version
// and block are filled in.
func (m *Meta) SetExtension(ext Extension) error {
	ext.Version, ext.Block = extensionVersion, m.ULID
	data, err := json.Marshal(map[string]Extension{"firnline": ext})
	if err != nil {
		return fmt.Errorf("block %s: thanos.extensions: %w", m.ULID, err)
	}
	m.Thanos.Extensions = data
	return nil
}

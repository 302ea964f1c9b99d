package ha

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/grafana/dskit/kv/memberlist"

	"github.com/firnline/firnline/pkg/tenant"
)

// Pair names senders that send the same, of which one is taken.
type Pair struct {
	Tenant  tenant.ID
	Cluster string
}

// Election says which sender of a pair is taken. Of two, the one that wins is
// the same for everybody, whatever their clocks say and in whatever order they
// hear of them.
type Election struct {
	Replica string `json:"replica"` // "": nobody; the pair was silent for long
	Term    uint64 `json:"term"`    // one more than that of the election it replaces
	Since   int64  `json:"since"`   // ms, by the clock of the router that elected
	Beat    int64  `json:"beat"`    // grows while the replica sends; about the time in ms
}

// sameAs tells whether two speak of the same election.
func (e Election) sameAs(o Election) bool {
	return e.Term == o.Term && e.Since == o.Since && e.Replica == o.Replica
}

// beats tells whether e is to be kept rather than o: the later term; in one
// term, when two routers elected without knowing of each other, the earlier.
func (e Election) beats(o Election) bool {
	switch {
	case e.Term != o.Term:
		return e.Term > o.Term
	case e.Since != o.Since:
		return e.Since < o.Since
	case e.Replica != o.Replica:
		return e.Replica < o.Replica
	}
	return e.Beat > o.Beat
}

// elections is what routers tell each other about the pairs of one tenant, by
// cluster. As a memberlist.Mergeable only what changed goes over the network.
type elections map[string]Election

var _ memberlist.Mergeable = elections{}

// Merge keeps the one of each pair that beats the other.
func (e elections) Merge(other memberlist.Mergeable, _ bool) (memberlist.Mergeable, error) {
	if other == nil {
		return nil, nil
	}
	with, ok := other.(elections)
	if !ok {
		return nil, fmt.Errorf("merge elections: with a %T", other)
	}
	changed := elections{}
	for cluster, theirs := range with {
		ours, known := e[cluster]
		if !known || theirs.beats(ours) {
			e[cluster], changed[cluster] = theirs, theirs
		}
	}
	if len(changed) == 0 {
		return nil, nil
	}
	return changed, nil
}

// MergeContent lists the clusters.
func (e elections) MergeContent() []string { return slices.Sorted(maps.Keys(e)) }

// RemoveTombstones drops pairs of which nobody is taken since before limit. They
// are not hidden from readers, who need their term (limit zero).
func (e elections) RemoveTombstones(limit time.Time) (total, removed int) {
	for cluster, one := range e {
		if one.Replica != "" {
			continue
		}
		if !limit.IsZero() && one.Since < limit.UnixMilli() {
			delete(e, cluster)
			removed++
			continue
		}
		total++
	}
	return total, removed
}

// Clone copies the elections.
func (e elections) Clone() memberlist.Mergeable { return maps.Clone(e) }

// Codec writes elections for the network: JSON with a version, since routers of
// two versions gossip during a rolling update.
type Codec struct{}

type message struct {
	Version int       `json:"version"`
	Pairs   elections `json:"pairs"`
}

const version = 1

// CodecID names the codec in messages.
func (Codec) CodecID() string { return "firnline-ha" }

// Encode writes elections.
func (Codec) Encode(v any) ([]byte, error) {
	e, ok := v.(elections)
	if !ok {
		return nil, fmt.Errorf("write elections: a %T", v)
	}
	return json.Marshal(message{version, e})
}

// Decode reads what Encode has written.
func (Codec) Decode(b []byte) (any, error) {
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read elections: %w", err)
	}
	if m.Version != version {
		return nil, fmt.Errorf("read elections: version %d, only %d is known", m.Version, version)
	}
	if m.Pairs == nil {
		m.Pairs = elections{}
	}
	return m.Pairs, nil
}

package fanout

import (
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/storeapi"
)

// rework is what an endpoint can't do and has to be done to its answer here.
type rework struct {
	shard   *storeapi.Shard
	without []string // replica labels
}

// forPeer returns the selection as it goes to an endpoint, and what is left to
// do to its answer (nil: nothing). The client could do it too, but here each
// response counts as a sign of life and towards the limits.
func forPeer(sel storeapi.Selection, info storeapi.Info) (storeapi.Selection, *rework) {
	var todo rework
	if len(sel.WithoutReplicaLabels) > 0 && !info.SupportsWithoutReplicaLabels {
		todo.without, sel.WithoutReplicaLabels = sel.WithoutReplicaLabels, nil
	}
	if sel.Shard != nil && sel.Shard.Total > 1 && (!info.SupportsSharding || todo.without != nil) {
		// The shard is told by the labels that are left, so that replicas meet in one.
		todo.shard, sel.Shard = sel.Shard, nil
	}
	if todo.shard == nil && len(todo.without) == 0 {
		return sel, nil
	}
	sel.Limit = 0 // it counts series after the rework
	return sel, &todo
}

// apply does to a set what the endpoint has not. Taking replica labels away
// changes the order, so the whole answer of such an endpoint is held in memory.
func (r *rework) apply(set storeapi.SeriesSet) storeapi.SeriesSet {
	if r == nil {
		return set
	}
	if len(r.without) > 0 {
		set = storeapi.Sorted(set, storeapi.NewExtender(labels.EmptyLabels(), r.without))
	}
	return storeapi.Sharded(set, r.shard)
}

package plan_test

import (
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// TestReplicaIsCutBeforeMerging has a request mean one replica's samples. While
// the job that takes them out has failed a short while ago the block is merged
// with none of another replica: it could not be told any more what was whose.
func TestReplicaIsCutBeforeMerging(t *testing.T) {
	cfg := defaultConfig()
	cfg.Dedup, cfg.ReplicaLabels = true, []string{"replica"}
	s := newSim(t, cfg)
	for _, replica := range []string{"a", "b"} {
		for h := int64(0); h < 48; h += 12 {
			s.now = (h + 12) * hour
			s.upload(h*hour, (h+12)*hour, 100, "cluster", "eu", "replica", replica)
		}
	}
	s.now = 3 * day
	s.in.Deletes = []*block.DeleteRequest{{
		ID: ulid.ULID{1}, Selectors: []string{`{k="03",replica="a"}`}, MaxTime: 2 * day, Created: s.clock(), State: block.DeletePending,
	}}
	for _, j := range s.plan().Jobs {
		if j.Kind == plan.Rewrite {
			s.in.Failed[j.Key] = s.clock().Add(time.Minute)
		}
	}
	require.Len(t, s.in.Failed, 4)
	for _, j := range s.plan().Jobs {
		for _, m := range j.Inputs {
			require.NotEqual(t, "a", m.Thanos.Labels["replica"], "%s: %s", j.Key, j.Why)
		}
	}
}

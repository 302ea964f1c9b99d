package e2e

import (
	"fmt"
	"maps"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/stack"
	"github.com/firnline/firnline/pkg/block"
)

// TestIngestedBlocksAreShipped: what was pushed is cut into blocks, which are in
// the bucket under the labels of their tenants, and a store gateway answers from
// them when the node is gone.
//
// RELIABILITY I5, P1
func TestIngestedBlocksAreShipped(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	in := r.ingest("a", "--objstore.config-file="+r.objstore, "--shipper.interval=1s", "--web.enable-admin-api",
		"--tsdb.min-block-duration=1m", "--tsdb.max-block-duration=1m", "--tsdb.out-of-order.time-window=1h")
	begin := time.Now().Add(-30 * time.Minute).Truncate(time.Minute)
	want := map[string]map[int64]string{}
	tenants := []string{"one", "two"}
	for i, tenant := range tenants {
		want[tenant] = pushMinutes(t, in, tenant, begin, float64(1000*i))
	}
	late := begin.Add(90 * time.Second).Add(time.Millisecond) // between others, so it goes another way
	require.Equal(t, 204, push(t, in, "two", floats([]string{"__name__", "shipped"}, sampleAt(late, -1))).Status)
	want["two"][late.UnixMilli()] = "-1"

	a, err := stack.Post(t.Context(), "http://"+in.HTTP+"/api/v1/ingest/flush", nil, nil)
	require.NoError(t, err)
	require.Equal(t, 200, a.Status, a.Body)
	blocks := map[string]int{}
	for name := range r.objects() {
		id, rel, ok := block.SplitName(name)
		if !ok || rel != block.MetaFilename {
			continue
		}
		m, err := block.ParseMeta(id, r.object(name))
		require.NoError(t, err)
		require.Equal(t, "a", m.Thanos.Labels["ingest"])
		require.EqualValues(t, "receive", m.Thanos.Source)
		require.LessOrEqual(t, m.MaxTime-m.MinTime, time.Minute.Milliseconds())
		blocks[m.Thanos.Labels["tenant_id"]]++
	}
	for _, tenant := range tenants {
		require.GreaterOrEqual(t, blocks[tenant], 4, "%v", blocks)
	}
	require.Len(t, blocks, 2)
	r.complete()
	in.Kill()

	q := r.asks(r.store())
	for _, tenant := range tenants {
		eventually(t, 30*time.Second, func() error {
			got, err := rawSamples(t, q, fmt.Sprintf("shipped{tenant_id=%q}", tenant), "tenant_id", time.Now(), time.Hour)
			if err == nil && !maps.Equal(want[tenant], got[tenant]) {
				err = fmt.Errorf("of %s there are %v, want %v", tenant, got[tenant], want[tenant])
			}
			return err
		})
	}
}

// pushMinutes sends five minutes of a series and returns its samples.
func pushMinutes(t *testing.T, to *stack.Firnline, tenant string, begin time.Time, first float64) map[int64]string {
	t.Helper()
	out := map[int64]string{}
	for n := range 20 {
		at := begin.Add(time.Duration(n) * 15 * time.Second)
		v := first + float64(n)/4
		a := push(t, to, tenant, floats([]string{"__name__", "shipped"}, prompb.Sample{Timestamp: at.UnixMilli(), Value: v}))
		require.Equal(t, 204, a.Status, a.Body)
		out[at.UnixMilli()] = strconv.FormatFloat(v, 'f', -1, 64)
	}
	return out
}

package wire

import (
	"fmt"
	"math/rand"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// thanosRequest writes what a router sends, old or new, and what each tenant should get.
func thanosRequest(r *rand.Rand) (p []byte, want map[string]*prompb.WriteRequest) {
	want = map[string]*prompb.WriteRequest{}
	add := func(tenant string, ts []prompb.TimeSeries) {
		if len(ts) == 0 {
			return
		}
		if want[tenant] == nil {
			want[tenant] = &prompb.WriteRequest{}
		}
		want[tenant].Timeseries = append(want[tenant].Timeseries, ts...)
	}
	message := func(tenant string) (p []byte, ts []prompb.TimeSeries) {
		ts = randomRW1(r).Timeseries
		p, _ = (&prompb.WriteRequest{Timeseries: ts}).Marshal()
		name := append([]byte{2<<3 | wireBytes, byte(len(tenant))}, tenant...)
		if r.Intn(2) == 0 {
			return append(name, p...), ts
		}
		return append(p, name...), ts
	}
	for range r.Intn(4) {
		tenant := fmt.Sprintf("tenant-%d", r.Intn(3))
		inner, ts := message(tenant)
		add(tenant, ts)
		p = append(appendUvarint(appendTag(p, 4, wireBytes), uint64(len(inner))), inner...)
	}
	p = append(p, 3<<3|wireVarint, 2)
	if r.Intn(2) == 0 {
		inner, ts := message("old")
		p = append(p, inner...)
		merged := want["old"]
		if merged == nil {
			add("old", ts)
		}
	}
	return p, want
}

// COMPAT A3.2: fields 1 and 2, and field 4, in any order.
func TestThanos(t *testing.T) {
	d := New(defaults(), time.Now)
	var pool batch.Pool
	for seed := range int64(500) {
		p, want := thanosRequest(rand.New(rand.NewSource(seed)))
		body, err := d.Wrap(p)
		require.NoError(t, err)
		parts, replica, err := d.Thanos(body, &pool)
		require.NoError(t, err, "seed %d", seed)
		require.EqualValues(t, 2, replica)
		require.Len(t, parts, len(want), "seed %d", seed)
		for _, part := range parts {
			raw, _ := want[part.Tenant].Marshal()
			expected, err := twin1(raw)
			require.NoError(t, err)
			got, err := printBatch(part.Batch)
			require.NoError(t, err)
			require.Equal(t, expected, got, "seed %d, %s", seed, part.Tenant)
		}
		for i, part := range parts {
			require.EqualValues(t, len(parts)-i, body.users.Load())
			pool.Put(part.Batch)
		}
	}
}

func fuzzThanos(t *testing.T, d *Decoder, p []byte) {
	var pool batch.Pool
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	body, err := d.Wrap(p)
	require.NoError(t, err)
	parts, _, err := d.Thanos(body, &pool)
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(500*len(p)+256<<10))
	if err != nil {
		require.Equal(t, 4, refuse.ReasonOf(err).Status()/100)
		require.Empty(t, parts)
	}
	for _, part := range parts {
		_, _ = printBatch(part.Batch)
		pool.Put(part.Batch)
	}
	require.LessOrEqual(t, body.users.Load(), int32(0))
}

func TestThanosDamaged(t *testing.T) {
	d := New(defaults(), time.Now)
	for seed := range int64(60) {
		r := rand.New(rand.NewSource(seed))
		p, _ := thanosRequest(r)
		for range 20 {
			fuzzThanos(t, d, damage(r, p))
		}
	}
}

// A request of many tenants is refused before it makes a batch of each.
func TestThanosTenants(t *testing.T) {
	cfg := defaults()
	cfg.MaxItems = 1000
	d := New(cfg, time.Now)
	var p []byte
	for i := range 100 {
		p = append(p, 4<<3|wireBytes, 6, 1<<3|wireBytes, 0, 2<<3|wireBytes, 2, byte('a'+i%26), byte('a'+i/26))
	}
	body, err := d.Wrap(p)
	require.NoError(t, err)
	_, _, err = d.Thanos(body, &batch.Pool{})
	require.ErrorContains(t, err, "max-items")
	require.Equal(t, refuse.RequestTooLarge, refuse.ReasonOf(err))
}

func FuzzThanos(f *testing.F) {
	d := New(defaults(), time.Now)
	for seed := range int64(8) {
		p, _ := thanosRequest(rand.New(rand.NewSource(seed)))
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) { fuzzThanos(t, d, p) })
}

// TestReplicaOf: what is admitted as one kind of request is carried out as that.
func TestReplicaOf(t *testing.T) {
	series := []byte{1<<3 | 2, 2, 0x0a, 0x00}
	for _, c := range []struct {
		body []byte
		want int64
	}{
		{nil, 0}, {series, 0}, {append([]byte{3 << 3, 2}, series...), 2}, {append(slices.Clone(series), 3<<3, 1), 1},
		{append(slices.Clone(series), 3<<3, 1, 0xff), 0},
	} {
		require.Equal(t, c.want, ReplicaOf(c.body), "%x", c.body)
		d := New(defaults(), time.Now)
		body, err := d.Wrap(c.body)
		require.NoError(t, err)
		if _, replica, err := d.Thanos(body, &batch.Pool{}); err == nil {
			require.Equal(t, c.want, replica)
		}
	}
}

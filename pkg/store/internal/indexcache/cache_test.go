package indexcache

import (
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func TestCache(t *testing.T) {
	c, err := New(1<<20, prometheus.NewRegistry())
	require.NoError(t, err)
	k := Key{Kind: Postings, Block: ulid.MustNewDefault(ulid.Time(1)), Name: "job", Value: "a"}
	other := k
	other.Block = ulid.MustNewDefault(ulid.Time(2))
	v := []byte("list")
	c.Put(k, v)
	v[0] = 'X' // the cache has its own copy
	got, ok := c.Get(k)
	require.True(t, ok)
	require.Equal(t, "list", string(got))
	_, ok = c.Get(other)
	require.False(t, ok)
	c.Drop(k)
	_, ok = c.Get(k)
	require.False(t, ok)
	require.EqualValues(t, 3, testutil.ToFloat64(c.metrics.requests[Postings]))
	require.EqualValues(t, 1, testutil.ToFloat64(c.metrics.hits[Postings]))
}

func TestCacheBounded(t *testing.T) {
	c, err := New(100_000, prometheus.NewRegistry())
	require.NoError(t, err)
	for i := range 1000 {
		c.Put(Key{Kind: Series, Ref: uint64(i)}, make([]byte, 1000))
	}
	c.entries.CleanUp()
	require.LessOrEqual(t, c.entries.WeightedSize(), uint64(100_000))
	require.Positive(t, c.entries.WeightedSize())
	c.Put(Key{Kind: Series, Ref: 5000}, make([]byte, 90_000))
	_, ok := c.Get(Key{Kind: Series, Ref: 5000})
	require.False(t, ok, "one entry must not push out most others")
}

func TestNoCache(t *testing.T) {
	c, err := New(0, prometheus.NewRegistry())
	require.NoError(t, err)
	c.Put(Key{}, []byte("x"))
	_, ok := c.Get(Key{})
	require.False(t, ok)
	c.Drop(Key{})
}

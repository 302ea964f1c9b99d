package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/query/internal/querier"
	"github.com/firnline/firnline/pkg/storeapi"
)

// dataOf is a Factory that remembers what it was asked for.
type dataOf struct {
	data storage.Queryable
	opts querier.Options
}

func (d *dataOf) Queryable(opts querier.Options) storage.Queryable {
	d.opts = opts
	return d.data
}

func TestSource(t *testing.T) {
	data := &dataOf{data: promqltest.LoadedStorage(t, "load 10s\n  m{i=\"a\"} 0+1x100\n")}
	src := NewSource(newTestEngine(t, nil), data, []string{"replica"})
	ctx := context.Background()
	at := time.Unix(100, 0)

	res, err := src.Query(ctx, storeapi.QueryRequest{
		Expr: "m", Start: at, Dedup: true, ReplicaLabels: []string{"r"}, PartialResponse: true,
		MaxResolution: time.Hour, Shard: &storeapi.Shard{Total: 2}, SkipChunks: true, Engine: "thanos",
	})
	require.NoError(t, err)
	require.Equal(t, promql.Vector{{T: 100_000, F: 10, Metric: labels.FromStrings("__name__", "m", "i", "a")}}, res.Value)
	require.Equal(t, int64(1), res.SamplesTotal)
	require.Equal(t, querier.Options{
		Dedup: true, ReplicaLabels: []string{"r"}, PartialResponse: true, MaxResolution: time.Hour,
		Shard: &storeapi.Shard{Total: 2}, SkipChunks: true,
	}, data.opts)

	res, err = src.Query(ctx, storeapi.QueryRequest{Expr: "rate(m[1m])", Start: at, End: at.Add(time.Minute), Step: 30 * time.Second})
	require.NoError(t, err)
	require.Len(t, res.Value.(promql.Matrix)[0].Floats, 3)
	require.Equal(t, []string{"replica"}, data.opts.ReplicaLabels)
	require.NotEmpty(t, res.Warnings) // an info: the name is not that of a counter

	res, err = src.Query(ctx, storeapi.QueryRequest{Expr: "1+1", Start: at})
	require.NoError(t, err)
	require.Equal(t, promql.Vector{{T: 100_000, F: 2, Metric: labels.EmptyLabels()}}, res.Value)

	res, err = src.Query(ctx, storeapi.QueryRequest{Expr: "1+1", Start: at, End: at, Step: time.Second})
	require.NoError(t, err)
	require.Equal(t, promql.FPoint{T: 100_000, F: 2}, res.Value.(promql.Matrix)[0].Floats[0])
}

func TestSourceErrors(t *testing.T) {
	e := newTestEngine(t, nil)
	at := time.Unix(100, 0)
	for _, tc := range []struct {
		name string
		req  storeapi.QueryRequest
		err  error // of the store
		want error
	}{
		{"syntax", storeapi.QueryRequest{Expr: "sum("}, nil, storeapi.ErrBadRequest},
		{"engine", storeapi.QueryRequest{Expr: "1", Engine: "volcano"}, nil, storeapi.ErrBadRequest},
		{"string", storeapi.QueryRequest{Expr: `"a"`}, nil, storeapi.ErrBadRequest},
		{"end before start", storeapi.QueryRequest{Expr: "1", Start: at, End: at.Add(-time.Second), Step: time.Second}, nil, storeapi.ErrBadRequest},
		{"negative step", storeapi.QueryRequest{Expr: "1", Start: at, End: at, Step: -1}, nil, storeapi.ErrBadRequest},
		{"too many steps", storeapi.QueryRequest{Expr: "1", Start: at, End: at.Add(time.Hour), Step: time.Millisecond}, nil, storeapi.ErrBadRequest},
		{"timeout", storeapi.QueryRequest{Expr: "m", Timeout: time.Millisecond}, nil, storeapi.ErrUnavailable},
		{"unavailable", storeapi.QueryRequest{Expr: "m"}, fmt.Errorf("store a: %w", storeapi.ErrUnavailable), storeapi.ErrUnavailable},
		{"partial", storeapi.QueryRequest{Expr: "m"}, fmt.Errorf("store a: %w", storeapi.ErrPartial), storeapi.ErrPartial},
		{"limit", storeapi.QueryRequest{Expr: "m"}, fmt.Errorf("store a: %w", storeapi.ErrLimit), storeapi.ErrLimit},
		{"execution", storeapi.QueryRequest{Expr: `label_replace(vector(1), "a", "b", "c", "(")`}, nil, storeapi.ErrBadRequest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src := NewSource(e, &dataOf{data: &brokenStore{err: tc.err}}, nil)
			_, err := src.Query(context.Background(), tc.req)
			require.ErrorIs(t, err, tc.want)
		})
	}

	db := promqltest.LoadedStorage(t, "load 1s\n  m 0+1x1000\n")
	small := NewSource(newTestEngine(t, func(c *Config) { c.MaxSamples = 10 }), &dataOf{data: db}, nil)
	_, err := small.Query(context.Background(), storeapi.QueryRequest{Expr: "sum_over_time(m[10m])", Start: time.Unix(900, 0)})
	require.ErrorIs(t, err, storeapi.ErrLimit)
	var samples promql.ErrTooManySamples
	require.True(t, errors.As(err, &samples))
}

package query

import (
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

// manyCounters is a store of series that grow for samples times 15 s.
func manyCounters(b *testing.B, replica string, series, samples int) storeapi.Store {
	b.Helper()
	var all []storeapi.Series
	for i := range series {
		var values []storetest.Sample
		for k := range samples {
			values = append(values, storetest.Sample{T: int64(k) * 15_000, V: float64(k*(i%7) + i)})
		}
		all = append(all, storeapi.Series{
			Labels: labels.FromStrings("__name__", "requests_total", "cluster", "x", "instance", fmt.Sprintf("%06d", i), "job", "api", "replica", replica),
			Chunks: storetest.Chunks(b, values, false, 0),
		})
	}
	info, err := counter(b, "cluster", "x", "replica", replica).Info(b.Context())
	require.NoError(b, err)
	return storetest.NewFake(all, info)
}

// A range query from the HTTP request down to stores over gRPC and back.
func BenchmarkQueryRange(b *testing.B) {
	const series, samples = 500, 1440
	for _, replicas := range []string{"a", "ab"} {
		var args []string
		for _, r := range replicas {
			address, _ := listen(b, storeapi.Services{Store: manyCounters(b, string(r), series, samples)})
			args = append(args, "--endpoint="+address)
		}
		q := startQuery(b, args...)
		for name, expr := range map[string]string{"rate": "sum by (job) (rate(requests_total[5m]))", "plain": "sum by (job) (requests_total)"} {
			b.Run(fmt.Sprintf("%s/replicas=%d/series=%d/samples=%d", name, len(replicas), series, samples), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if ans := get(b, q, "/api/v1/query_range", "query", expr, "start", "900", "end", "21000", "step", "60"); ans.code != 200 {
						b.Fatal(ans.Error)
					}
				}
			})
		}
	}
}

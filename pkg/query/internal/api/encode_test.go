package api

import (
	"fmt"
	"io"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"
)

func testMatrix(series, points int) promql.Matrix {
	m := make(promql.Matrix, series)
	for i := range m {
		m[i].Metric = labels.FromStrings("__name__", "requests_total", "instance", fmt.Sprintf("10.0.0.%d:9090", i), "job", "api")
		for j := range points {
			m[i].Floats = append(m[i].Floats, promql.FPoint{T: 1_763_800_000_000 + int64(j)*15_000, F: float64(i*j) / 7})
		}
	}
	return m
}

// writeSizes remembers the largest piece written.
type writeSizes struct{ max, total int }

func (w *writeSizes) Write(p []byte) (int, error) {
	w.max, w.total = max(w.max, len(p)), w.total+len(p)
	return len(p), nil
}

// TestEncoderIsBounded: an answer of many megabytes passes through a buffer of kilobytes.
func TestEncoderIsBounded(t *testing.T) {
	var w writeSizes
	require.NoError(t, newStream(&w).result(testMatrix(10, 10_000), nil))
	require.NoError(t, newStream(&w).result(testMatrix(10_000, 10), nil))
	require.Greater(t, w.total, 6<<20)
	require.Less(t, w.max, 2*flushBytes)
	require.Error(t, newStream(brokenWriter{}).result(testMatrix(1000, 100), nil))
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func BenchmarkEncodeMatrix(b *testing.B) {
	for _, size := range []struct{ series, points int }{{10, 100}, {1000, 1000}} {
		m := testMatrix(size.series, size.points)
		b.Run(fmt.Sprintf("of=firnline/series=%d/points=%d", size.series, size.points), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := newStream(io.Discard).result(m, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("of=prometheus/series=%d/points=%d", size.series, size.points), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				body, err := v1.JSONCodec{}.Encode(&v1.Response{Status: "success", Data: &v1.QueryData{ResultType: m.Type(), Result: m}})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Discard.Write(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

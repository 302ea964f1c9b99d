package ingest_test

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// protocol is one way to send a sample of each of n series.
type protocol struct {
	name, path, contentType, encoding string

	// body is the request of one moment, of n series from one on. A series has the same name at each.
	body func(from, n int, at time.Time) ([]byte, error)
}

var protocols = []protocol{
	{"v1", "/api/v1/write", protobuf, "snappy", func(from, n int, at time.Time) ([]byte, error) {
		var req prompb.WriteRequest
		for i := range n {
			ts := prompb.TimeSeries{Samples: []prompb.Sample{{Timestamp: at.UnixMilli(), Value: float64(i)}}}
			for _, l := range hotLabels(from + i) {
				ts.Labels = append(ts.Labels, prompb.Label{Name: l[0], Value: l[1]})
			}
			req.Timeseries = append(req.Timeseries, ts)
		}
		raw, err := req.Marshal()
		return snappy.Encode(nil, raw), err
	}},
	{"v2", "/api/v1/write", protobuf + ";proto=io.prometheus.write.v2.Request", "snappy", func(from, n int, at time.Time) ([]byte, error) {
		var req writev2.Request
		symbols := writev2.NewSymbolTable()
		for i := range n {
			ts := writev2.TimeSeries{Samples: []writev2.Sample{{Timestamp: at.UnixMilli(), Value: float64(i)}}}
			for _, l := range hotLabels(from + i) {
				ts.LabelsRefs = append(ts.LabelsRefs, symbols.Symbolize(l[0]), symbols.Symbolize(l[1]))
			}
			req.Timeseries = append(req.Timeseries, ts)
		}
		req.Symbols = symbols.Symbols()
		raw, err := req.Marshal()
		return snappy.Encode(nil, raw), err
	}},
	{"otlp", "/v1/metrics", protobuf, "", func(from, n int, at time.Time) ([]byte, error) {
		all := pmetric.NewMetrics()
		scope := all.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty()
		for i := range n {
			labels := hotLabels(from + i)
			m := scope.Metrics().AppendEmpty()
			m.SetName(labels[0][1])
			p := m.SetEmptyGauge().DataPoints().AppendEmpty()
			p.SetDoubleValue(float64(i))
			p.SetTimestamp(pcommon.NewTimestampFromTime(at))
			for _, l := range labels[1:] {
				p.Attributes().PutStr(l[0], l[1])
			}
		}
		return pmetricotlp.NewExportRequestFromMetrics(all).MarshalProto()
	}},
}

// hotLabels are sorted, and of the size that those of Kubernetes' metrics have.
func hotLabels(i int) [][2]string {
	return [][2]string{
		{"__name__", "http_requests_" + strconv.Itoa(i%10)}, {"container", "app"}, {"namespace", fmt.Sprintf("team-%02d", i%30)},
		{"path", "/api/v1/resource/" + strconv.Itoa(i%10)}, {"pod", fmt.Sprintf("checkout-7c9f6d5b4-%06d", i/10)},
	}
}

// sender is a tenant that writes to the handler of a node without a network.
type sender struct {
	protocol
	tenant  string
	handler http.Handler
	from    int // the first series
	series  int
	at      time.Time
}

// next is the request of the next moment.
func (s *sender) next(t testing.TB) *http.Request {
	s.at = s.at.Add(time.Second)
	body, err := s.body(s.from, s.series, s.at)
	require.NoError(t, err)
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, s.path, bytes.NewReader(body))
	req.Header.Set("Content-Type", s.contentType)
	req.Header.Set("Content-Encoding", s.encoding)
	req.Header.Set("X-Scope-OrgID", s.tenant)
	return req
}

func (s *sender) send(t testing.TB, req *http.Request) {
	answer := httptest.NewRecorder()
	s.handler.ServeHTTP(answer, req)
	if answer.Code/100 != 2 {
		t.Fatal(answer.Code, answer.Body.String())
	}
}

// startBusy starts a node that takes whatever comes.
func startBusy(t testing.TB) *node {
	return start(t, t.TempDir(), "--ingest.sync=none", "--ingest.cpu-watermark=0", "--ingest.memory-watermark=0")
}

func newSender(t testing.TB, n *node, p protocol, series int) *sender {
	s := &sender{protocol: p, tenant: fmt.Sprintf("%s-%d", p.name, series), handler: n.in.Handler(), series: series, at: time.Now().Add(-time.Hour)}
	for range 3 { // series are created, their order is learned, memory comes from pools
		s.send(t, s.next(t))
	}
	return s
}

// BenchmarkWrite: a request with a sample of each of 2,000 known series, from
// the handler to the log.
func BenchmarkWrite(b *testing.B) {
	const series = 2000
	for _, p := range protocols {
		b.Run("proto="+p.name, func(b *testing.B) {
			n := startBusy(b)
			s := newSender(b, n, p, series)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				req := s.next(b)
				if time.Since(s.at) < 0 { // nothing of the future is taken
					n.stop()
					n = startBusy(b)
					s = newSender(b, n, p, series)
					req = s.next(b)
				}
				b.StartTimer()
				s.send(b, req)
			}
			b.StopTimer()
			n.stop()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/series, "ns/sample")
		})
	}
}

// BenchmarkNewSeries: a request with a sample of each of 2,000 series that nobody has sent before.
func BenchmarkNewSeries(b *testing.B) {
	const series = 2000
	for _, p := range protocols {
		b.Run("proto="+p.name, func(b *testing.B) {
			n := startBusy(b)
			s := newSender(b, n, p, series)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				s.from += series
				req := s.next(b)
				b.StartTimer()
				s.send(b, req)
			}
			b.StopTimer()
			n.stop()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/series, "ns/series")
		})
	}
}

// TestNoAllocationPerSample: what a request of known series allocates is bounded
// by the request, not by its samples.
func TestNoAllocationPerSample(t *testing.T) {
	const few, many, mostAllocations = 200, 4000, 1000 // under the race detector pools lose some of what they get
	n := startBusy(t)
	defer n.stop()
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			small, large := allocations(t, newSender(t, n, p, few), mostAllocations), allocations(t, newSender(t, n, p, many), mostAllocations)
			t.Logf("allocations of a request: %d with %d samples, %d with %d", small, few, large, many)
			require.Less(t, large, uint64(mostAllocations))
		})
	}
}

// allocations is the fewest that one of some requests took: collections empty
// pools, and what runs beside them allocates too, the more the longer a request takes. So
// there are more of them until one took few enough, but not for ever.
func allocations(t testing.TB, s *sender, enough uint64) uint64 {
	fewest := uint64(math.MaxUint64)
	for i := 0; i < 10 || i < 300 && fewest >= enough; i++ {
		req := s.next(t)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s.send(t, req)
		runtime.ReadMemStats(&after)
		fewest = min(fewest, after.Mallocs-before.Mallocs)
	}
	return fewest
}

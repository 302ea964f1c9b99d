package wire

import (
	"fmt"
	"math/rand"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

const randomRequests = 600

// RELIABILITY P12, section 6: what is decoded equals what Prometheus' own code makes of it.
func TestRW1EqualsTwin(t *testing.T) {
	d := New(defaults(), time.Now)
	for seed := range int64(randomRequests) {
		r := rand.New(rand.NewSource(seed))
		p, err := randomRW1(r).Marshal()
		require.NoError(t, err)
		if seed%2 == 1 {
			p = shuffleFields(r, p, map[int32]bool{1: true, 3: true})
		}
		want, err := twin1(p)
		require.NoError(t, err)
		got, err := decode(t, d, RW1, p, Sender{})
		require.NoError(t, err, "seed %d", seed)
		require.Equal(t, want, got, "seed %d", seed)
	}
}

func TestRW2EqualsTwin(t *testing.T) {
	d := New(defaults(), time.Now)
	for seed := range int64(randomRequests) {
		r := rand.New(rand.NewSource(seed))
		p, err := randomRW2(r).Marshal()
		require.NoError(t, err)
		if seed%2 == 1 {
			// The order of symbols matters, so they keep their place behind or before the series.
			p = shuffleSeries(r, p)
		}
		want, err := twin2(p)
		require.NoError(t, err)
		got, err := decode(t, d, RW2, p, Sender{})
		require.NoError(t, err, "seed %d", seed)
		require.Equal(t, want, got, "seed %d", seed)
	}
}

// shuffleSeries shuffles the fields within each TimeSeries and puts the symbols behind them.
func shuffleSeries(r *rand.Rand, p []byte) []byte {
	var series, symbols []byte
	s := scanner{b: p, end: len(p)}
	for s.more() {
		at := s.i
		if num, _ := s.tag(); num == 5 {
			inner := shuffleFields(r, s.bytes(), nil)
			series = append(appendUvarint(appendTag(series, 5, wireBytes), uint64(len(inner))), inner...)
		} else {
			s.skip(wireBytes)
			symbols = append(symbols, p[at:s.i]...)
		}
	}
	return append(series, symbols...)
}

// Bytes cut off or changed anywhere are refused, or read as the twin reads them.
func TestRWDamaged(t *testing.T) {
	d := New(defaults(), time.Now)
	for seed := range int64(50) {
		r := rand.New(rand.NewSource(seed))
		p1, _ := randomRW1(r).Marshal()
		p2, _ := randomRW2(r).Marshal()
		for range 40 {
			sameAsTwin(t, d, RW1, damage(r, p1), twin1)
			sameAsTwin(t, d, RW2, damage(r, p2), twin2)
		}
	}
}

func damage(r *rand.Rand, p []byte) []byte {
	p = append([]byte(nil), p...)
	if len(p) == 0 {
		return p
	}
	switch r.Intn(3) {
	case 0:
		return p[:r.Intn(len(p))]
	case 1:
		p[r.Intn(len(p))] = byte(r.Intn(256))
	default:
		p[r.Intn(len(p))] ^= 1 << r.Intn(8)
	}
	return p
}

// A series has one Key however its fields are interleaved, and over requests
// whose tables of symbols differ; two series have two.
func TestKeys(t *testing.T) {
	d := New(defaults(), time.Now)
	keys := func(f Format, p []byte) (out []batch.Key) {
		body, err := d.Wrap(p)
		require.NoError(t, err)
		b := &batch.Batch{}
		require.NoError(t, d.Decode(f, body, b, Sender{}))
		for _, s := range b.Series {
			out = append(out, s.Key)
		}
		return out
	}
	label := func(n, v string) []byte {
		l := prompb.Label{Name: n, Value: v}
		p, _ := l.Marshal()
		return append([]byte{1<<3 | wireBytes, byte(len(p))}, p...)
	}
	sample := []byte{2<<3 | wireBytes, 2, 2 << 3, 7}
	series := func(fields ...[]byte) []byte {
		var p []byte
		for _, f := range fields {
			p = append(p, f...)
		}
		return append([]byte{1<<3 | wireBytes, byte(len(p))}, p...)
	}
	a, b := label("a", "1"), label("b", "2")
	var p []byte
	for _, s := range [][]byte{series(a, b, sample), series(a, sample, b), series(sample, a, b), series(sample, a, sample, b), series(b, a), series(a)} {
		p = append(p, s...)
	}
	k := keys(RW1, p)
	require.Equal(t, k[0], k[1])
	require.Equal(t, k[0], k[2])
	require.Equal(t, k[0], k[3])
	require.NotEqual(t, k[0], k[4], "labels in another order may have another Key: intake maps both to one series")
	require.NotEqual(t, k[0], k[5])

	first := writev2.Request{Symbols: []string{"", "a", "1", "b", "2"}, Timeseries: []writev2.TimeSeries{
		{LabelsRefs: []uint32{1, 2, 3, 4}}, {LabelsRefs: []uint32{1, 4, 3, 2}}, {LabelsRefs: []uint32{1, 2}}}}
	second := writev2.Request{Symbols: []string{"", "x", "2", "1", "b", "a"}, Timeseries: []writev2.TimeSeries{{LabelsRefs: []uint32{5, 3, 4, 2}}}}
	p1, _ := first.Marshal()
	p2, _ := second.Marshal()
	k1, k2 := keys(RW2, p1), keys(RW2, p2)
	require.Equal(t, k1[0], k2[0])
	require.NotEqual(t, k1[0], k1[1])
	require.NotEqual(t, k1[0], k1[2])
}

// RELIABILITY P12: malformed is 400 and says where.
func TestRWRefusals(t *testing.T) {
	cfg := defaults()
	cfg.MaxItems = 10
	d := New(cfg, time.Now)
	v2 := func(r writev2.Request) []byte { p, _ := r.Marshal(); return p }
	for _, c := range []struct {
		name   string
		format Format
		body   []byte
		want   string
		reason refuse.Reason
	}{
		{"cut off", RW1, []byte{0x0a, 0x05, 0x0a, 0x03}, "malformed remote write 1 at byte 1: a field of 5 bytes where 2 are left", refuse.BadRequest},
		{"wrong wire type", RW1, []byte{0x08, 0x01}, "malformed remote write 1 at byte 1: wire type 0 where 2 is expected", refuse.BadRequest},
		{"field 0", RW1, []byte{0x02, 0x00}, "malformed remote write 1 at byte 0: field number 0, wire type 2", refuse.BadRequest},
		{"endless varint", RW1, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "more than 10 bytes", refuse.BadRequest},
		{"stray end of group", RW1, []byte{0x0c}, "at byte 0: field number 1, wire type 4", refuse.BadRequest},
		{"half a label", RW1, []byte{0x0a, 0x04, 0x0a, 0x02, 0x0a, 0x05}, "malformed remote write 1 at byte 5: a field of 5 bytes where 0 are left", refuse.BadRequest},
		{"too many series", RW1, make11(0x0a), "max-items", refuse.RequestTooLarge},
		{"too many symbols", RW2, make11(0x22), "max-items", refuse.RequestTooLarge},
		{"no empty symbol", RW2, v2(writev2.Request{Symbols: []string{"a"}, Timeseries: []writev2.TimeSeries{{}}}), "first symbol", refuse.BadRequest},
		{"no symbols", RW2, v2(writev2.Request{Timeseries: []writev2.TimeSeries{{}}}), "first symbol", refuse.BadRequest},
		{"label out of range", RW2, v2(writev2.Request{Symbols: []string{"", "a"}, Timeseries: []writev2.TimeSeries{{LabelsRefs: []uint32{1, 2}}}}),
			"malformed remote write 2 at byte 10: a reference to symbol 2 of 2", refuse.BadRequest},
		{"odd references", RW2, v2(writev2.Request{Symbols: []string{"", "a"}, Timeseries: []writev2.TimeSeries{{LabelsRefs: []uint32{1}}}}), "make pairs", refuse.BadRequest},
		{"exemplar out of range", RW2, v2(writev2.Request{Symbols: []string{""}, Timeseries: []writev2.TimeSeries{
			{Exemplars: []writev2.Exemplar{{LabelsRefs: []uint32{0, 9}}}}}}), "symbol 9 of 1", refuse.BadRequest},
		{"help out of range", RW2, v2(writev2.Request{Symbols: []string{""}, Timeseries: []writev2.TimeSeries{{Metadata: writev2.Metadata{HelpRef: 3}}}}),
			"symbol 3 of 1", refuse.BadRequest},
		{"version 1 as version 2", RW2, []byte{0x0a, 0x00}, "check the content type", refuse.BadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := decode(t, d, c.format, c.body, Sender{})
			require.ErrorContains(t, err, c.want)
			require.Equal(t, c.reason, refuse.ReasonOf(err))
		})
	}
}

// make11 is a message of eleven empty fields.
func make11(tag byte) (p []byte) {
	for range 11 {
		p = append(p, tag, 0)
	}
	return p
}

// loadRW1 is what a Prometheus with many series sends: 2000 of one sample.
func loadRW1(series int) []byte {
	req := &prompb.WriteRequest{}
	for i := range series {
		var ls []prompb.Label
		for _, l := range loadLabels(i) {
			ls = append(ls, prompb.Label{Name: l[0], Value: l[1]})
		}
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{Labels: ls, Samples: []prompb.Sample{{Value: float64(i) + 0.5, Timestamp: 1_700_000_000_000}}})
	}
	p, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return p
}

func loadRW2(series int) []byte {
	req := &writev2.Request{}
	table := writev2.NewSymbolTable()
	for i := range series {
		var refs []uint32
		for _, l := range loadLabels(i) {
			refs = append(refs, table.Symbolize(l[0]), table.Symbolize(l[1]))
		}
		req.Timeseries = append(req.Timeseries, writev2.TimeSeries{LabelsRefs: refs, Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER},
			Samples: []writev2.Sample{{Value: float64(i) + 0.5, Timestamp: 1_700_000_000_000}}})
	}
	req.Symbols = table.Symbols()
	p, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return p
}

func loadLabels(i int) [][2]string {
	j := i / 10
	return [][2]string{
		{"__name__", fmt.Sprintf("bench_load_requests_%02d_total", i%10)},
		{"container", "app"},
		{"instance", fmt.Sprintf("10.%d.%d.%d:8080", j>>16&255, j>>8&255, j&255)},
		{"job", "bench/load"},
		{"namespace", fmt.Sprintf("namespace-%02d", j%30)},
		{"path", fmt.Sprintf("/api/v1/resource/%d", i%10)},
		{"pod", fmt.Sprintf("load-generator-7c9f6d5b4-%06d", j)},
		{"run", "mb3k2a9x"},
		{"shard", fmt.Sprint(i % 20)},
	}
}

// Issue 4: no allocation per sample or series once warm.
func TestDecodeAllocates(t *testing.T) {
	d := New(defaults(), time.Now)
	var pool batch.Pool
	for f, p := range map[Format][]byte{RW1: loadRW1(2000), RW2: loadRW2(2000), OTLPProto: loadOTLP(2000)} {
		once := func() {
			body, err := d.Wrap(p)
			require.NoError(t, err)
			b := pool.Get()
			require.NoError(t, d.Decode(f, body, b, Sender{}))
			require.GreaterOrEqual(t, len(b.Floats), 2000)
			pool.Put(b)
		}
		once()
		// The wrapped Body, the functions of the Batch; the pools may lose a few to the collector.
		require.Less(t, testing.AllocsPerRun(50, once), 40.0, f.String())
	}
}

func FuzzRW1(f *testing.F) {
	d := New(defaults(), time.Now)
	for seed := range int64(8) {
		p, _ := randomRW1(rand.New(rand.NewSource(seed))).Marshal()
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) { sameAsTwin(t, d, RW1, p, twin1) })
}

func FuzzRW2(f *testing.F) {
	d := New(defaults(), time.Now)
	for seed := range int64(8) {
		p, _ := randomRW2(rand.New(rand.NewSource(seed))).Marshal()
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) { sameAsTwin(t, d, RW2, p, twin2) })
}

// perSample reports the process' CPU time, collector included: it means
// something on a busy machine too.
func perSample(b *testing.B, samples int) func() {
	cpu := func() int64 {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return u.Utime.Nano() + u.Stime.Nano()
	}
	began := cpu()
	return func() { b.ReportMetric(float64(cpu()-began)/float64(b.N*samples), "cpu-ns/sample") }
}

func BenchmarkRemoteWrite(b *testing.B) {
	const series = 2000
	d := New(defaults(), time.Now)
	var pool batch.Pool
	for _, c := range []struct {
		f        Format
		body     []byte
		upstream func([]byte) error
	}{
		{RW1, loadRW1(series), func(p []byte) error { var r prompb.WriteRequest; return r.Unmarshal(p) }},
		{RW2, loadRW2(series), func(p []byte) error { var r writev2.Request; return r.Unmarshal(p) }},
	} {
		b.Run(fmt.Sprintf("%s/samples=%d/ours", c.f, series), func(b *testing.B) {
			b.ReportAllocs()
			defer perSample(b, series)()
			for b.Loop() {
				body, _ := d.Wrap(c.body)
				into := pool.Get()
				if err := d.Decode(c.f, body, into, Sender{}); err != nil {
					b.Fatal(err)
				}
				pool.Put(into)
			}
		})
		b.Run(fmt.Sprintf("%s/samples=%d/generated", c.f, series), func(b *testing.B) {
			b.ReportAllocs()
			defer perSample(b, series)()
			for b.Loop() {
				if err := c.upstream(c.body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

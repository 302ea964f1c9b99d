package forward_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/forward"
	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/tenant"
)

func TestMain(m *testing.M) { proctest.Main(m) }

// receiver is a remote-write endpoint that keeps what it gets, or answers with a status.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	status  int // 0: take it
	most    int // requests that are still taken; 0: all
	got     []string
	tenants []string
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) set(status int) { r.mu.Lock(); defer r.mu.Unlock(); r.status = status }

// limit has it take so many requests more; 0: all.
func (r *receiver) limit(requests int) { r.mu.Lock(); defer r.mu.Unlock(); r.most = requests }

func (r *receiver) samples() []string { r.mu.Lock(); defer r.mu.Unlock(); return slices.Clone(r.got) }

// away is an endpoint that never takes anything. What is sent on goes to another one: a request that was given up may
// still be on its way, and would be taken as well.
func away(t *testing.T) *receiver {
	r := newReceiver(t)
	r.set(http.StatusServiceUnavailable)
	return r
}

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status != 0 {
		http.Error(w, "not now", r.status)
		return
	}
	body, err := io.ReadAll(req.Body)
	if err == nil {
		body, err = snappy.Decode(nil, body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.most--; r.most == 0 {
		r.status = http.StatusServiceUnavailable
	}
	r.tenants = append(r.tenants, req.Header.Get("X-Scope-OrgID"))
	b := labels.NewScratchBuilder(0)
	if req.Header.Get("X-Prometheus-Remote-Write-Version") == "2.0.0" {
		var v2 writev2.Request
		if err := v2.Unmarshal(body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, ts := range v2.Timeseries {
			lset, _ := ts.ToLabels(&b, v2.Symbols)
			m, _ := ts.ToMetadata(v2.Symbols)
			for _, s := range ts.Samples {
				r.got = append(r.got, fmt.Sprintf("%s %d %g %s", lset, s.Timestamp, s.Value, m.Type))
			}
			for _, h := range ts.Histograms {
				r.got = append(r.got, fmt.Sprintf("%s %d histogram %d", lset, h.Timestamp, h.ToIntHistogram().Count))
			}
		}
		return
	}
	var v1 prompb.WriteRequest
	if err := v1.Unmarshal(body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for _, ts := range v1.Timeseries {
		lset := ts.ToLabels(&b, nil)
		for _, s := range ts.Samples {
			r.got = append(r.got, fmt.Sprintf("%s %d %g", lset, s.Timestamp, s.Value))
		}
		for _, h := range ts.Histograms {
			r.got = append(r.got, fmt.Sprintf("%s %d histogram %d", lset, h.Timestamp, h.ToIntHistogram().Count))
		}
		for _, e := range ts.Exemplars {
			r.got = append(r.got, fmt.Sprintf("%s exemplar %s %g", lset, e.ToExemplar(&b, nil).Labels, e.Value))
		}
	}
	for _, m := range v1.Metadata {
		r.got = append(r.got, fmt.Sprintf("metadata %s %s %s", m.MetricFamilyName, m.Type, m.Help))
	}
}

// write makes a request with a sample of each series at t.
func write(id tenant.ID, t int64, series ...string) *batch.Write {
	w := &batch.Write{Tenant: id, Batch: &batch.Batch{}}
	for i, name := range series {
		w.Only = append(w.Only, uint32(i))
		n := uint32(i)
		w.Batch.Series = append(w.Batch.Series, batch.Series{ID: uint64(len(name)), Floats: batch.Span{From: n, To: n + 1}})
		w.Batch.Floats = append(w.Batch.Floats, batch.Float{T: t, V: float64(t) / 2})
	}
	w.Batch.Labels = func(i int) (labels.Labels, error) {
		return labels.FromStrings(model.MetricNameLabel, series[i], "team", string(series[i][0])), nil
	}
	return w
}

type rig struct {
	*forward.Forwarder
	t    *testing.T
	dir  string
	reg  *prometheus.Registry
	stop func()
}

func start(t *testing.T, dir, rules string) *rig {
	t.Helper()
	return startWith(t, dir, forward.Config{Rules: rules, Interval: model.Duration(time.Hour), MaxTables: 1 << 20})
}

func startWith(t *testing.T, dir string, cfg forward.Config) *rig {
	t.Helper()
	r := &rig{t: t, dir: dir, reg: prometheus.NewRegistry()}
	f, err := forward.New(cfg, dir, slog.New(slog.DiscardHandler), r.reg)
	require.NoError(t, err)
	r.Forwarder = f
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	r.stop = sync.OnceFunc(func() { cancel(); require.NoError(t, <-done) })
	t.Cleanup(r.stop)
	return r
}

func (r *rig) metric(name string) float64 { return r.value(name).GetCounter().GetValue() }

func (r *rig) gauge(name string) float64 { return r.value(name).GetGauge().GetValue() }

// value is the first of a name, nil if there is none.
func (r *rig) value(name string) *dto.Metric {
	families, err := r.reg.Gather()
	require.NoError(r.t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0]
		}
	}
	return nil
}

func rules(url, more string) string {
	return fmt.Sprintf("endpoints:\n- name: saas\n  url: %s\n  queue: {batch_send_deadline: 10ms, min_backoff: 5ms, max_backoff: 20ms, shards: 2, max_bytes: 16MiB}\n%s", url, more)
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 2*time.Minute, 5*time.Millisecond)
}

func TestSelectedSeriesAreSent(t *testing.T) {
	recv := newReceiver(t)
	f := start(t, t.TempDir(), rules(recv.URL, `  tenants: [a]
  match: ['{team="x"}', 'yy']
  write_relabel_configs: [{action: labeldrop, regex: team}, {action: drop, source_labels: [__name__], regex: x_secret}]
  tenant_header: X-Scope-OrgID
`))
	w := write("a", 10, "x", "yy", "zzz", "x_secret")
	w.Batch.Histograms = []batch.Histogram{{T: 11, H: tsdbutil.GenerateTestHistogram(1)}}
	w.Batch.Series[0].Histograms = batch.Span{From: 0, To: 1}
	w.Batch.Exemplars = []exemplar.Exemplar{{Labels: labels.FromStrings("trace", "t"), Value: 2, Ts: 12}}
	w.Batch.Series[0].Exemplars = batch.Span{From: 0, To: 1}
	w.Batch.Families = []batch.Family{{Name: "x", Metadata: metadata.Metadata{Type: model.MetricTypeGauge, Help: "An x."}}, {Name: "zzz"}}
	f.Offer(w)
	f.Offer(write("b", 10, "x"))
	f.Offer(write("a", 20, "x", "zzz"))
	eventually(t, func() bool { return len(recv.samples()) >= 6 })
	got := recv.samples()
	slices.Sort(got)
	require.Equal(t, []string{
		`metadata x GAUGE An x.`,
		`{__name__="x"} 10 5`, `{__name__="x"} 11 histogram 21`, `{__name__="x"} 20 10`, `{__name__="x"} exemplar {trace="t"} 2`,
		`{__name__="yy"} 10 5`,
	}, got)
	require.Equal(t, []string{"a"}, slices.Compact(recv.tenants))
}

func TestRemoteWrite2(t *testing.T) {
	recv := newReceiver(t)
	f := start(t, t.TempDir(), rules(recv.URL, "  protobuf_message: io.prometheus.write.v2.Request\n"))
	w := write("a", 10, "x")
	f.Offer(w) // makes the metric known, so that its metadata goes along
	w = write("a", 20, "x")
	w.Batch.Families = []batch.Family{{Name: "x", Metadata: metadata.Metadata{Type: model.MetricTypeGauge}}}
	w.Batch.Histograms = []batch.Histogram{{T: 21, H: tsdbutil.GenerateTestHistogram(1)}}
	w.Batch.Series[0].Histograms = batch.Span{From: 0, To: 1}
	f.Offer(w)
	eventually(t, func() bool { return len(recv.samples()) == 3 })
	require.Contains(t, recv.samples(), `{__name__="x", team="x"} 21 histogram 21`)
}

// A dead endpoint holds up nothing; what waited is sent, in order, after a
// restart and when the endpoint is back.
func TestQueueSurvives(t *testing.T) {
	recv, dir := newReceiver(t), t.TempDir()
	f := start(t, dir, rules(away(t).URL, ""))
	for i := range 50 {
		f.Offer(write("a", int64(i), "x", "yy"))
	}
	eventually(t, func() bool { return f.metric("firnline_ingest_forward_retries_total") > 2 })
	require.NotEmpty(t, f.Status()[0].LastError)
	f.stop()
	f = start(t, dir, rules(recv.URL, ""))
	f.Offer(write("a", 50, "x", "yy"))
	eventually(t, func() bool { return len(recv.samples()) == 102 })
	var xs []string
	for _, s := range recv.samples() {
		if s[:len(`{__name__="x"`)] == `{__name__="x"` {
			xs = append(xs, s)
		}
	}
	for i, s := range xs {
		require.Equal(t, fmt.Sprintf(`{__name__="x", team="x"} %d %g`, i, float64(i)/2), s)
	}
	eventually(t, func() bool { return f.Status()[0].LastError == "" }) // noted once the answer has come
}

func TestRefusedForGood(t *testing.T) {
	recv := newReceiver(t)
	recv.set(http.StatusBadRequest)
	f := start(t, t.TempDir(), rules(recv.URL, ""))
	f.Offer(write("a", 1, "x"))
	eventually(t, func() bool { return f.metric("firnline_ingest_forward_refused_samples_total") == 1 })
	recv.set(0)
	f.Offer(write("a", 2, "x"))
	eventually(t, func() bool { return len(recv.samples()) == 1 })
}

// The queue is bounded: the oldest goes, and is counted.
func TestFullQueue(t *testing.T) {
	recv := newReceiver(t)
	recv.set(http.StatusServiceUnavailable)
	dir := t.TempDir()
	f := start(t, dir, rules(recv.URL, ""))
	name := make([]byte, 100<<10)
	for i := range name {
		name[i] = byte('a' + i*i%23)
	}
	sent := 0
	for f.metric("firnline_ingest_forward_dropped_samples_total") == 0 {
		w := write("a", int64(sent), "x")
		w.Batch.Exemplars = nil
		for j := range 20 { // a record of some hundred kilobytes that doesn't compress
			w.Batch.Floats = append(w.Batch.Floats, batch.Float{T: int64(j), V: math.Sqrt(float64(sent*20 + j))})
		}
		for range 4000 {
			w.Batch.Floats = append(w.Batch.Floats, batch.Float{T: int64(sent), V: math.Sin(float64(len(w.Batch.Floats) * (sent + 1)))})
		}
		w.Batch.Series[0].Floats.To = uint32(len(w.Batch.Floats))
		f.Offer(w)
		sent++
		require.Less(t, sent, 10_000)
	}
	var size int64
	require.NoError(t, filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			info, _ := d.Info()
			size += info.Size()
		}
		return err
	}))
	require.LessOrEqual(t, size, int64(17<<20))
	recv.set(0)
	eventually(t, func() bool { return len(recv.samples()) > 0 })
}

func TestTornQueue(t *testing.T) {
	recv, dir := newReceiver(t), t.TempDir()
	f := start(t, dir, rules(away(t).URL, "  headers: {A: b}\n"))
	for i := range 10 {
		f.Offer(write("a", int64(i), "x"))
	}
	f.stop()
	segments, err := filepath.Glob(filepath.Join(dir, "saas", "*", "0000*"))
	require.NoError(t, err)
	for _, s := range segments {
		info, err := os.Stat(s)
		require.NoError(t, err)
		if info.Size() > 0 {
			require.NoError(t, os.Truncate(s, 100))
		}
		require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(s), "sent"), []byte("{torn"), 0o600))
	}
	f = start(t, dir, rules(recv.URL, "  headers: {A: b}\n"))
	f.Offer(write("a", 100, "x"))
	eventually(t, func() bool {
		got := recv.samples()
		return len(got) > 0 && got[len(got)-1] == `{__name__="x", team="x"} 100 50`
	})
}

// follow starts with rules in a file that set changes.
func follow(t *testing.T, dir, rules string) (f *rig, set func(rules string) error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rules.yml")
	write := func(s string) { require.NoError(t, os.WriteFile(file, []byte(s), 0o600)) }
	write(rules)
	f = startWith(t, dir, forward.Config{RulesFile: file, Interval: model.Duration(time.Hour), MaxTables: 1 << 20})
	return f, func(s string) error { write(s); return f.Reload() }
}

// TestReload: rules change while requests come, and each sample goes to one of the endpoints.
func TestReload(t *testing.T) {
	first, second := newReceiver(t), newReceiver(t)
	f, set := follow(t, t.TempDir(), rules(first.URL, ""))
	f.Offer(write("a", -1, "x"))
	eventually(t, func() bool { return len(first.samples()) == 1 })
	require.ErrorContains(t, set("endpoints: [{name: ../x, url: 'http://h'}]"), "name: want 1 to 64")

	const samples = 3000
	changed, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := range samples {
			if i == samples/2 { // however slow the rules change, half comes after they did
				<-changed
			}
			f.Offer(write("a", int64(i), "x", "yy"))
		}
	}()
	for n, more := 0, true; more; n++ {
		url := []string{second.URL, first.URL}[n%2]
		require.NoError(t, set(rules(url, fmt.Sprintf("  headers: {N: '%d'}\n", n))))
		require.Len(t, f.Status(), 1)
		if n == 0 {
			close(changed)
			eventually(t, func() bool { return len(second.samples()) > 0 })
		}
		select {
		case <-ended:
			more = false
		default:
		}
	}
	all := func() map[string]bool {
		got := map[string]bool{}
		for _, s := range append(first.samples(), second.samples()...) {
			got[s] = true
		}
		return got
	}
	eventually(t, func() bool { return len(all()) == 1+2*samples })
}

// TestReloadThatFails: rules whose queues can't be opened change nothing.
func TestReloadThatFails(t *testing.T) {
	recv, dir := newReceiver(t), t.TempDir()
	f, set := follow(t, dir, rules(recv.URL, ""))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "blocked"), nil, 0o600))
	more := rules("http://127.0.0.1:1/changed", "") + "- {name: fine, url: 'http://127.0.0.1:1'}\n- {name: blocked, url: 'http://127.0.0.1:1'}\n"
	require.ErrorContains(t, set(more), "blocked")
	require.Len(t, f.Status(), 1)
	require.Equal(t, recv.URL, f.Status()[0].URL)
	f.Offer(write("a", 1, "x"))
	eventually(t, func() bool { return len(recv.samples()) == 1 })
	require.NoError(t, os.Remove(filepath.Join(dir, "blocked")))
	require.NoError(t, f.Reload(), "the same file, now that it can be used")
	require.Len(t, f.Status(), 3)
}

// TestRemovedEndpoint: what is queued for an endpoint is sent after it was taken
// out of the rules; then its queue goes.
func TestRemovedEndpoint(t *testing.T) {
	recv, dir := newReceiver(t), t.TempDir()
	recv.set(http.StatusServiceUnavailable)
	f, set := follow(t, dir, rules(recv.URL, ""))
	for i := range 10 {
		f.Offer(write("a", int64(i), "x", "yy"))
	}
	require.ErrorContains(t, set(" "), "is empty")
	require.False(t, f.Status()[0].Draining)
	require.NoError(t, set("endpoints: []"))
	require.True(t, f.Status()[0].Draining)
	f.Offer(write("a", 100, "x"))

	require.NoError(t, set(rules(recv.URL, "")), "it may come back")
	require.False(t, f.Status()[0].Draining)
	f.Offer(write("a", 10, "x", "yy"))
	require.NoError(t, set("endpoints: []"))
	require.DirExists(t, filepath.Join(dir, "saas"))
	recv.set(0)
	eventually(t, func() bool { return len(f.Status()) == 0 })
	eventually(t, func() bool { _, err := os.Stat(filepath.Join(dir, "saas")); return os.IsNotExist(err) })
	got := recv.samples() // some twice, if a request that was given up with the old rules has come late
	slices.Sort(got)
	require.Len(t, slices.Compact(got), 22)
	for _, name := range []string{"firnline_ingest_forward_queue_bytes", "firnline_ingest_forward_sent_timestamp_seconds"} {
		eventually(t, func() bool { return f.value(name) == nil })
	}
}

// TestLeftQueue: a queue that no rule names at the start is kept, and sent once one does.
func TestLeftQueue(t *testing.T) {
	recv, dir := newReceiver(t), t.TempDir()
	f := start(t, dir, rules(away(t).URL, ""))
	f.Offer(write("a", 1, "x"))
	f.stop()
	f, set := follow(t, dir, "endpoints: []")
	require.EqualValues(t, 1, f.gauge("firnline_ingest_forward_left_queues"))
	require.NoError(t, set(rules(recv.URL, "")))
	eventually(t, func() bool { return len(recv.samples()) == 1 })
}

// TestPositionOfMixedTenants: how far a queue is sent is noted though the next
// load, of another tenant, has been begun.
func TestPositionOfMixedTenants(t *testing.T) {
	first, second, dir := newReceiver(t), newReceiver(t), t.TempDir()
	first.limit(10)
	const header = "  tenant_header: X-Scope-OrgID\n"
	f := start(t, dir, rules(first.URL, header))
	for i := range 20 {
		f.Offer(write(tenant.ID([]string{"a", "b"}[i%2]), int64(i), "x"))
	}
	eventually(t, func() bool {
		return len(first.samples()) == 10 && f.metric("firnline_ingest_forward_retries_total") > 0
	})
	f.stop()
	f = start(t, dir, rules(second.URL, header))
	eventually(t, func() bool { return len(second.samples()) >= 10 })
	f.stop()
	require.Len(t, append(first.samples(), second.samples()...), 20, "none is sent twice")
}

// TestTablesAreBounded: what is known of series has its limit, and series beyond it are sent all the same.
func TestTablesAreBounded(t *testing.T) {
	recv := newReceiver(t)
	const limit = 64 << 10
	f := startWith(t, t.TempDir(), forward.Config{Rules: rules(recv.URL, ""), Interval: model.Duration(time.Hour), MaxTables: limit})
	for session := range 20 {
		w := &batch.Write{Tenant: "a", Session: batch.Session{byte(session)}, Batch: &batch.Batch{}}
		for i := range uint32(100) {
			w.Only = append(w.Only, i)
			w.Batch.Series = append(w.Batch.Series, batch.Series{ID: uint64(i) << 30, Floats: batch.Span{From: i, To: i + 1}})
			w.Batch.Floats = append(w.Batch.Floats, batch.Float{T: int64(session)})
		}
		w.Batch.Labels = func(i int) (labels.Labels, error) { return labels.FromStrings("n", fmt.Sprint(i)), nil }
		f.Offer(w)
		used := f.gauge("firnline_ingest_forward_table_bytes")
		require.Positive(t, used)
		require.LessOrEqual(t, used, float64(limit))
	}
	eventually(t, func() bool { return len(recv.samples()) == 2000 })
}

func TestBadRules(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"endpoints: [{name: a, url: 'http://h', typo: 1}]", "field typo not found"},
		{"endpoints: [{name: a}]", "url: want http"},
		{"endpoints: [{name: a, url: 'file:///etc/passwd'}]", "url: want http"},
		{"endpoints: [{name: a, url: 'http://h'}, {name: a, url: 'http://h'}]", "is taken"},
		{"endpoints: [{name: a, url: 'http://h', match: ['{']}]", "match"},
		{"endpoints: [{name: a, url: 'http://h', tenants: ['../x']}]", "tenants"},
		{"endpoints: [{name: a, url: 'http://h', protobuf_message: x}]", "protobuf_message"},
		{"endpoints: [{name: a, url: 'http://h', queue: {max_bytes: 1KB}}]", "max_bytes"},
	} {
		_, err := forward.ParseRules([]byte(c.yaml), "rules.yml")
		require.ErrorContains(t, err, c.want, c.yaml)
		require.ErrorContains(t, err, "rules.yml")
	}
}

// TestOneProcess: a second process on the same folder neither opens nor removes queues.
func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	open := func(rules string) (*forward.Forwarder, error) {
		return forward.New(forward.Config{Rules: rules, Interval: model.Duration(time.Hour), MaxTables: 1 << 20}, dir, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	}
	end := func(f *forward.Forwarder) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, f.Run(ctx))
	}
	f, err := open(`endpoints: [{name: a, url: "http://127.0.0.1:1/write"}]`)
	require.NoError(t, err)
	for _, rules := range []string{"", `endpoints: [{name: a, url: "http://127.0.0.1:1/write"}]`} {
		_, err := open(rules)
		require.ErrorContains(t, err, "in use by another process")
	}
	require.DirExists(t, filepath.Join(dir, "a"))
	end(f)
	f, err = open("")
	require.NoError(t, err)
	require.DirExists(t, filepath.Join(dir, "a"), "what is queued is kept, though no rule names it")
	end(f)
}

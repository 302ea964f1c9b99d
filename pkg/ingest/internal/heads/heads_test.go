package heads

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
	"github.com/firnline/firnline/pkg/tenant"
)

// start is the time of the tests' first sample: two hours' bound, long ago, so that clocks play no part.
const start = int64(1_700_006_400_000)

// rig is Heads that run. They are tended and shipped, and their full chunks written, when a test says so: how soon
// that is done besides depends on the machine.
type rig struct {
	*Heads
	t      testing.TB
	cfg    Config
	p      Parts
	byself bool // they are tended and shipped as always
	stop   func()

	mu struct {
		sync.Mutex
		now time.Time
		lim map[tenant.ID]Limits
	}
}

func defaults(t testing.TB) Config {
	t.Helper()
	var cfg Config
	fs := flag.NewFlagSet(t.Name(), flag.ContinueOnError)
	cfg.RegisterFlags(fs)
	require.NoError(t, fs.Parse([]string{"--tsdb.path", t.TempDir(), "--label", `replica="a"`, "--tsdb.min-free", "0", "--tsdb.max-exemplars", "1000", "--ingest.sync-interval", "0s"}))
	require.NoError(t, cfg.Validate())
	return cfg
}

// newRig starts Heads and stops them at the end of the test.
func newRig(t testing.TB, change ...func(*Config, *Parts)) *rig {
	t.Helper()
	r := &rig{t: t, cfg: defaults(t)}
	r.mu.now, r.mu.lim = time.UnixMilli(start), map[tenant.ID]Limits{}
	r.p = Parts{Log: slog.New(slog.DiscardHandler), Now: r.clock, Limits: r.limit}
	for _, c := range change {
		c(&r.cfg, &r.p)
	}
	r.run()
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *rig) run() {
	r.t.Helper()
	p := r.p
	p.Metrics = prometheus.NewPedanticRegistry()
	r.Heads = New(r.cfg, p)
	if !r.byself {
		r.every = func(ctx context.Context, _ time.Duration, _ func(context.Context)) { <-ctx.Done() }
		r.reload = 24 * time.Hour
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(r.t, <-ended)
	})
	require.Eventually(r.t, func() bool {
		select {
		case err := <-ended:
			ended <- err
			require.NoError(r.t, err)
		default:
		}
		return r.Ready() == nil
	}, 5*time.Minute, time.Millisecond)
}

// restart stops the Heads in order and starts them anew.
func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.run()
}

func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.now
}

func (r *rig) advance(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.now = r.mu.now.Add(d)
}

func (r *rig) limit(id tenant.ID) Limits {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.lim[id]
}

func (r *rig) setLimits(id tenant.ID, l Limits) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.lim[id] = l
}

// write is a Write of series as storetest has them, with numbers from first on.
func write(id tenant.ID, first uint64, series ...storetest.Series) *batch.Write {
	b := &batch.Batch{}
	for i, s := range series {
		one := batch.Series{ID: first + uint64(i)}
		one.Floats.From, one.Histograms.From = uint32(len(b.Floats)), uint32(len(b.Histograms))
		for _, smp := range s.Samples {
			if smp.H == nil && smp.FH == nil {
				b.Floats = append(b.Floats, batch.Float{ST: smp.ST, T: smp.T, V: smp.V})
			} else {
				b.Histograms = append(b.Histograms, batch.Histogram{ST: smp.ST, T: smp.T, H: smp.H, FH: smp.FH})
			}
		}
		one.Floats.To, one.Histograms.To = uint32(len(b.Floats)), uint32(len(b.Histograms))
		b.Series = append(b.Series, one)
	}
	b.Labels = func(i int) (labels.Labels, error) { return series[i].Labels, nil }
	return whole(id, b)
}

// whole is a Write of all of a batch.
func whole(id tenant.ID, b *batch.Batch) *batch.Write {
	w := &batch.Write{Tenant: id, Session: batch.Session{1}, Batch: b}
	for i := range b.Series {
		w.Only = append(w.Only, uint32(i))
	}
	return w
}

// one is a series with floats, by time and value.
func one(name string, samples ...float64) storetest.Series {
	s := storetest.Series{Labels: labels.FromStrings("__name__", name)}
	for i := 0; i < len(samples); i += 2 {
		s.Samples = append(s.Samples, storetest.Sample{T: start + int64(samples[i]), V: samples[i+1]})
	}
	return s
}

// put appends and expects that all is taken.
func (r *rig) put(w *batch.Write) {
	r.t.Helper()
	res, err := r.Append(context.Background(), w)
	require.NoError(r.t, err)
	require.Empty(r.t, res.Unknown)
	for _, ref := range res.Refused {
		r.t.Fatalf("refused: %s", ref.Err)
	}
}

// read returns what the matchers select over all time.
func (r *rig) read(ctx context.Context, ms ...*labels.Matcher) map[string][]storetest.Sample {
	r.t.Helper()
	set, err := r.Services().Store.Series(ctx, storeapi.Selection{Mint: math.MinInt64, Maxt: math.MaxInt64, Matchers: ms})
	require.NoError(r.t, err)
	defer set.Close()
	out := map[string][]storetest.Sample{}
	for set.Next() {
		s := set.At()
		out[s.Labels.String()] = storetest.Samples(r.t, s.Chunks, math.MinInt64, math.MaxInt64)
	}
	require.NoError(r.t, set.Err())
	return out
}

func named(name string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, "__name__", name)
}

func everything() *labels.Matcher { return labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+") }

func verifyNoLeaks(m *testing.M) {
	// The TSDB leaves its log open when reading it fails (TestNoRoomToOpen). Those
	// that are open have other goroutines, too.
	proctest.Main(m, goleak.IgnoreTopFunction("github.com/prometheus/prometheus/tsdb/wlog.(*WL).run"))
}

// TestConformance runs the suite of every Store over a head.
func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T, in storetest.Input) storeapi.Store { return filled(t, in).Services().Store }, storetest.RequiresMatchers())
}

// TestConformanceBlocks runs it over local blocks, a block in time order and one not.
func TestConformanceBlocks(t *testing.T) {
	storetest.Run(t, func(t *testing.T, in storetest.Input) storeapi.Store {
		r := filled(t, in)
		require.NoError(t, r.FlushAll(t.Context()))
		return r.Services().Store
	}, storetest.RequiresMatchers())
}

// filled is a rig with the suite's data: the tenant's label is one of the external ones.
func filled(t *testing.T, in storetest.Input) *rig {
	r := newRig(t, func(cfg *Config, p *Parts) {
		cfg.Labels = nil
		cfg.TenantLabel = "cluster"
		in.External.Range(func(l labels.Label) {
			if l.Name != "cluster" {
				cfg.Labels = append(cfg.Labels, fmt.Sprintf("%s=%q", l.Name, l.Value))
			}
		})
		p.Now = func() time.Time { return time.UnixMilli(in.Maxt) }
	})
	r.put(write("eu-1", 1, in.Series...))
	return r
}

// TestAppend: what was answered is there, known series need no labels, and a
// series that is not known says so.
func TestAppend(t *testing.T) {
	r := newRig(t)
	w := write("a", 1, one("up", 0, 1, 1000, 2), one("down", 0, 3))
	r.put(w)
	want := map[string][]storetest.Sample{
		`{__name__="up", replica="a", tenant_id="a"}`:   {{T: start, V: 1}, {T: start + 1000, V: 2}},
		`{__name__="down", replica="a", tenant_id="a"}`: {{T: start, V: 3}},
	}
	require.Equal(t, want, r.read(t.Context(), everything()))

	next := write("a", 1, one("up", 2000, 5), one("down", 2000, 6), one("new", 2000, 7))
	next.Batch.Labels = func(int) (labels.Labels, error) { return labels.EmptyLabels(), batch.ErrNoLabels }
	res, err := r.Append(t.Context(), next)
	require.NoError(t, err)
	require.Equal(t, batch.Result{Unknown: []uint32{2}}, res)
	got := r.read(t.Context(), everything())
	require.Len(t, got, 2)
	require.Equal(t, storetest.Sample{T: start + 2000, V: 5}, got[`{__name__="up", replica="a", tenant_id="a"}`][2])

	next.Session = batch.Session{2}
	res, err = r.Append(t.Context(), next)
	require.NoError(t, err)
	require.Equal(t, []uint32{0, 1, 2}, res.Unknown, "numbers mean nothing in another session")
}

// TestTenantsApart: nobody sees another's data, by matcher or by context.
func TestTenantsApart(t *testing.T) {
	r := newRig(t)
	r.put(write("a", 1, one("up", 0, 1)))
	r.put(write("b", 1, one("up", 0, 2)))
	require.Len(t, r.read(t.Context(), everything()), 2)
	of := labels.MustNewMatcher(labels.MatchEqual, "tenant_id", "b")
	require.Equal(t, map[string][]storetest.Sample{`{__name__="up", replica="a", tenant_id="b"}`: {{T: start, V: 2}}}, r.read(t.Context(), everything(), of))
	as := tenant.NewContext(t.Context(), "a")
	require.Equal(t, map[string][]storetest.Sample{`{__name__="up", replica="a", tenant_id="a"}`: {{T: start, V: 1}}}, r.read(as, everything()))
	require.Empty(t, r.read(as, everything(), of))

	info, err := r.Services().Store.Info(as)
	require.NoError(t, err)
	require.Equal(t, []storeapi.TSDBInfo{{Labels: labels.FromStrings("replica", "a", "tenant_id", "a"), Mint: start, Maxt: math.MaxInt64}}, info.TSDBs)
	values, _, err := r.Services().Store.LabelValues(t.Context(), "tenant_id", storeapi.Selection{Maxt: math.MaxInt64})
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, values)
	stats, _, err := r.Services().Status.TSDBStats(as, 10, false)
	require.NoError(t, err)
	require.Len(t, stats, 1)
	require.EqualValues(t, 1, stats["a"].HeadStats.NumSeries)
}

// TestExtras: exemplars and metadata are kept in memory of their own.
func TestExtras(t *testing.T) {
	r := newRig(t)
	w := write("a", 1, one("up", 0, 1))
	w.Batch.Exemplars = []exemplar.Exemplar{{Labels: labels.FromStrings("trace", "x"), Value: 1, Ts: start, HasTs: true}}
	w.Batch.Series[0].Exemplars = batch.Span{To: 1}
	w.Batch.Families = []batch.Family{{Name: "up"}}
	w.Batch.Families[0].Type, w.Batch.Families[0].Help = "gauge", "whether it is up"
	r.put(w)
	for range 2 {
		got, _, err := r.Services().Exemplars.Exemplars(t.Context(), `rate(up{tenant_id="a"}[5m])`, 0, math.MaxInt64, false)
		require.NoError(t, err)
		require.Len(t, got, 1)
		require.Equal(t, `{__name__="up", replica="a", tenant_id="a"}`, got[0].SeriesLabels.String())
		require.Equal(t, w.Batch.Exemplars[0].Labels, got[0].Exemplars[0].Labels)
		meta, _, err := r.Services().Metadata.Metadata(t.Context(), "", -1, false)
		require.NoError(t, err)
		require.Equal(t, map[string][]storeapi.Metadata{"up": {{Type: "gauge", Help: "whether it is up"}}}, meta)
		r.restart()
	}
}

// selectAll selects everything of all time.
func selectAll() storeapi.Selection {
	return storeapi.Selection{Mint: math.MinInt64, Maxt: math.MaxInt64, Matchers: []*labels.Matcher{everything()}}
}

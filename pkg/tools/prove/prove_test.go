package prove

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// memory is a store in memory, which can go wrong.
type memory struct {
	samples map[string]map[int]map[int64]float64
	refuse  func() bool                       // nil: never
	answer  func(kind string, s *Sample) bool // false: leave the sample out
}

func (m *memory) Write(_ context.Context, _ string, all []Series) error {
	if m.refuse != nil && m.refuse() {
		return errors.New("refused")
	}
	for _, s := range all {
		if m.samples[s.Kind] == nil {
			m.samples[s.Kind] = map[int]map[int64]float64{}
		}
		if m.samples[s.Kind][s.N] == nil {
			m.samples[s.Kind][s.N] = map[int64]float64{}
		}
		for _, v := range s.Samples {
			m.samples[s.Kind][s.N][v.T] = v.V
		}
	}
	return nil
}

func (m *memory) Window(_ context.Context, _, kind string, end time.Time, window time.Duration) ([]Series, error) {
	var out []Series
	for n, all := range m.samples[kind] {
		s := Series{Kind: kind, N: n}
		for t, v := range all {
			if t <= end.UnixMilli() && t > end.Add(-window).UnixMilli() {
				s.add(m, t, v)
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func (s *Series) add(m *memory, t int64, v float64) {
	sample := Sample{t, v}
	if m.answer == nil || m.answer(s.Kind, &sample) {
		s.Samples = append(s.Samples, sample)
	}
}

func (m *memory) Steps(_ context.Context, _, kind string, r v1.Range) ([]Series, error) {
	start, end, step := r.Start, r.End, r.Step
	var out []Series
	for n, all := range m.samples[kind] {
		s := Series{Kind: kind, N: n}
		for t := start; !t.After(end); t = t.Add(step) {
			if v, ok := all[t.UnixMilli()]; ok {
				s.add(m, t.UnixMilli(), v)
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// run proves a store for an hour of simulated time.
func run(t *testing.T, m *memory) (Result, *prometheus.Registry, error) {
	t.Helper()
	m.samples = map[string]map[int]map[int64]float64{}
	reg := prometheus.NewRegistry()
	cfg := Config{ID: "x", Series: 3, Interval: 15 * time.Second, Check: time.Minute, Windows: []time.Duration{5 * time.Minute, 30 * time.Minute}, Settle: 30 * time.Second, Duration: time.Hour, Pending: 100}
	p := New(cfg, m, slog.New(slog.NewTextHandler(io.Discard, nil)), reg)
	res, err := p.Run(t.Context())
	return res, reg, err
}

func TestProve(t *testing.T) {
	lost := map[int64]bool{}
	for name, tc := range map[string]struct {
		store memory
		want  string // of the first mismatch; "": none
	}{
		"a store that is right": {memory{}, ""},
		"one that refuses now and then": {memory{refuse: func() func() bool {
			r := rand.New(rand.NewPCG(1, 1))
			return func() bool { return r.IntN(3) == 0 }
		}()}, ""},
		"one that loses a sample": {memory{answer: func(_ string, s *Sample) bool {
			if len(lost) == 0 {
				lost[s.T] = true
			}
			return !lost[s.T]
		}}, "missing: "},
		"one that changes a value": {memory{answer: func(kind string, s *Sample) bool {
			if kind == Gauge {
				s.V++
			}
			return true
		}}, "wrong: "},
		"one that moves a sample": {memory{answer: func(_ string, s *Sample) bool { s.T += 7; return true }}, "extra: "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				res, reg, err := run(t, &tc.store)
				require.Greater(t, res.Checks, 100)
				require.GreaterOrEqual(t, res.Written, 239)
				if tc.want == "" {
					require.NoError(t, err, res.First)
					require.Zero(t, res.Mismatches)
					return
				}
				require.ErrorIs(t, err, ErrMismatch)
				require.Contains(t, res.First, tc.want)
				n, gatherErr := testutil.GatherAndCount(reg, "firnline_prove_mismatches_total")
				require.NoError(t, gatherErr)
				require.Equal(t, 3, n)
			})
		})
	}
}

func TestProveExpectsWhatWasWrittenBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{samples: map[string]map[int]map[int64]float64{}}
		cfg := Config{ID: "x", Series: 1, Interval: 15 * time.Second, Check: time.Minute, Windows: []time.Duration{time.Hour}, Settle: 30 * time.Second, Duration: 5 * time.Minute, Pending: 10, Since: time.Now().Add(-10 * time.Minute)}
		_, err := New(cfg, m, slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry()).Run(t.Context())
		require.ErrorIs(t, err, ErrMismatch)
	})
}

func TestProveTellsThatNothingCouldBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		res, _, err := run(t, &memory{refuse: func() bool { return true }})
		require.NoError(t, err)
		require.Zero(t, res.Written)
		require.Greater(t, res.WriteFailures, 100)
	})
}

// TestProveTakesOnlyWholeAnswers: one with a warning of a missing part proves nothing, and is no mismatch.
func TestProveTakesOnlyWholeAnswers(t *testing.T) {
	warnings := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"status":"success",%s"data":{"resultType":"matrix","result":[{"metric":{"n":"2"},"values":[[15,"7"]]}]}}`, warnings)
	}))
	defer srv.Close()
	client, err := api.NewClient(api.Config{Address: srv.URL, Client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}})
	require.NoError(t, err)
	h, err := NewHTTP(srv.URL, v1.NewAPI(client), srv.Client())
	require.NoError(t, err)
	end := time.Unix(60, 0)
	got, err := h.Window(t.Context(), "x", Gauge, end, time.Minute)
	require.NoError(t, err)
	require.Equal(t, []Series{{Gauge, 2, []Sample{{15_000, 7}}}}, got)
	warnings = `"warnings":["store b: no answer"],`
	_, err = h.Window(t.Context(), "x", Gauge, end, time.Minute)
	require.ErrorContains(t, err, "lacks something: store b: no answer")
	_, err = h.Steps(t.Context(), "x", Gauge, v1.Range{Start: end.Add(-time.Minute), End: end, Step: time.Minute})
	require.ErrorContains(t, err, "lacks something: store b: no answer")
}

package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// RELIABILITY K1
func TestReloadOverHTTP(t *testing.T) {
	cfg := testConfig()
	cfg.EnableLifecycle = true
	h := newHarness(t, cfg)
	var bad atomic.Bool
	h.AddReloader("endpoints", func(context.Context) error {
		if bad.Load() {
			return errors.New("endpoints.yml:3: field adress not found")
		}
		return nil
	})
	h.start(t)
	code, body := post(t, h.url("/-/reload"))
	require.Equal(t, 200, code, body)
	require.Equal(t, 1.0, testutil.ToFloat64(h.metrics.lastReloadOK))
	stamp := testutil.ToFloat64(h.metrics.lastReloadTime)
	require.NotZero(t, stamp)

	bad.Store(true)
	code, body = post(t, h.url("/-/reload"))
	require.Equal(t, 500, code)
	require.Equal(t, "reload: the configuration before stays in force: endpoints: endpoints.yml:3: field adress not found\n", body)
	require.Equal(t, 0.0, testutil.ToFloat64(h.metrics.lastReloadOK))
	require.Equal(t, stamp, testutil.ToFloat64(h.metrics.lastReloadTime))

	code, _, _ = get(t, h.url("/-/reload"))
	require.Equal(t, 405, code)
	code, _ = post(t, h.url("/-/reload"), "Sec-Fetch-Site", "cross-site", "Origin", "http://evil.example")
	require.Equal(t, 403, code, "another site's page")
}

func TestReloadIsOffByDefault(t *testing.T) {
	h := newHarness(t, testConfig())
	h.AddReloader("x", func(context.Context) error { t.Error("was run"); return nil })
	h.start(t)
	code, body := post(t, h.url("/-/reload"))
	require.Equal(t, 403, code)
	require.Contains(t, body, "--web.enable-lifecycle")
}

// RELIABILITY K1
func TestReloadStormIsCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := reloads{metrics: newMetrics(prometheus.NewRegistry()), now: time.Now}
		runs, fail := 0, errors.New("second time")
		r.add("slow", func(context.Context) error {
			time.Sleep(time.Second)
			if runs++; runs == 2 {
				return fail
			}
			return nil
		})
		var wg sync.WaitGroup
		first := make(chan error, 1)
		wg.Go(func() { first <- r.do(t.Context()) })
		synctest.Wait() // the first one is running
		const storm = 100
		errs := make(chan error, storm)
		for range storm {
			wg.Go(func() { errs <- r.do(t.Context()) })
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		synctest.Wait()
		require.ErrorIs(t, r.do(gone), context.Canceled, "a caller may leave")
		wg.Wait()
		require.Equal(t, 2, runs, "a hundred calls share one reload")
		require.NoError(t, <-first)
		for range storm {
			require.ErrorIs(t, <-errs, fail, "and its outcome")
		}
	})
}

func TestReloaderThatFailsDoesNotStopTheOthers(t *testing.T) {
	r := reloads{metrics: newMetrics(prometheus.NewRegistry()), now: time.Now}
	r.add("one", func(context.Context) error { return errors.New("a") })
	r.add("two", func(context.Context) error { return errors.New("b") })
	require.EqualError(t, r.do(t.Context()), "one: a\ntwo: b")
}

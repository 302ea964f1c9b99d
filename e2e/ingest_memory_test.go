package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/stack"
)

// memory is a group of so many MiB, whose processes have ended when it goes.
func memory(t *testing.T, mib int64) *stack.MemoryGroup {
	t.Helper()
	g, err := stack.NewMemoryGroup(fmt.Sprintf("firnline-%d-%d", time.Now().UnixNano(), mib), mib<<20)
	if err != nil {
		t.Skipf("memory can't be bounded here: %s", err)
	}
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	return g
}

// bomb sends series that nobody has sent before, in requests of 2000.
type bomb struct {
	tenant string
	next   int
	taken  []int // the first series of each request that was acknowledged
	at     time.Time
}

func (b *bomb) throw(t *testing.T, at *stack.Firnline) stack.Posted {
	t.Helper()
	series := make([]prompb.TimeSeries, 2000)
	for i := range series {
		series[i] = b.series(b.next + i)
	}
	a := push(t, at, b.tenant, series...)
	if a.Status == http.StatusNoContent {
		b.taken = append(b.taken, b.next)
	}
	b.next += len(series)
	return a
}

func (b *bomb) series(n int) prompb.TimeSeries {
	return floats([]string{"__name__", "bomb", "instance", "10.0.0.1:9090", "job", "kubernetes-pods", "user", strconv.Itoa(n)}, sampleAt(b.at, float64(n)))
}

// there checks that series of the first and of the last requests are.
func (b *bomb) there(t *testing.T, q *stack.Firnline) error {
	t.Helper()
	for _, n := range []int{b.taken[0], b.taken[len(b.taken)/2], b.taken[len(b.taken)-1]} {
		got, err := rawSamples(t, q, fmt.Sprintf(`bomb{tenant_id=%q,user="%d"}`, b.tenant, n+7), "user", b.at, time.Hour)
		if err != nil {
			return err
		}
		if len(got) != 1 {
			return fmt.Errorf("series %d of %d is not there", n+7, b.next)
		}
	}
	return nil
}

// memorySeen collects garbage and returns what the watermarks saw last, as metrics say it.
func memorySeen(t *testing.T, in *stack.Firnline) (share float64, err error) {
	t.Helper()
	if status, _ := get(t, "http://"+in.HTTP+"/debug/pprof/heap?gc=1"); status != http.StatusOK {
		return 0, fmt.Errorf("collect garbage: %d", status)
	}
	_, body := get(t, "http://"+in.HTTP+"/metrics")
	_, rest, ok := strings.Cut(body, "\nfirnline_ingest_usage_ratio{resource=\"memory\"} ")
	if !ok {
		return 0, errors.New("memory is not looked at yet")
	}
	seen, _, _ := strings.Cut(rest, "\n")
	return strconv.ParseFloat(seen, 64)
}

// TestMemoryIsBounded: in a memory cgroup, series without end are refused before there
// is no memory left: by the limit of their tenant, and where there is none by the
// memory in use, what is new before all else. What was acknowledged is there after a kill, in as much memory.
// In half of it the tenant is not opened and says why, while others go on; nothing is lost.
//
// RELIABILITY I7, I9, P7
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	r := bareRig(t)
	limits := filepath.Join(r.dir, "limits.yml")
	r.write(limits, "write: {tenants: {limited: {head_series_limit: 10000}}}\n")
	args := r.ingestArgs("a", "--receive.limits-config-file="+limits, "--ingest.cpu-watermark=0")
	run := func(mib int64) (*stack.Firnline, func()) {
		g := memory(t, mib)
		in := r.launch(g.Prefix(), args...)
		eventually(t, time.Minute, func() error { return stack.OK(t.Context(), "http://"+in.HTTP+"/-/ready") })
		return in, func() {
			t.Helper()
			killed, err := g.Killed()
			require.NoError(t, err)
			require.Zero(t, killed, "killed for want of memory")
			in.Kill()
		}
	}
	now := time.Now()
	limited, free := &bomb{tenant: "limited", at: now}, &bomb{tenant: "free", at: now}

	in, end := run(320)
	known := func(tenant string) stack.Posted {
		t.Helper()
		now = now.Add(time.Second)
		return push(t, in, tenant, floats([]string{"__name__", "known"}, sampleAt(now, 1)))
	}
	require.Equal(t, 204, known("limited").Status)
	require.Equal(t, 204, known("free").Status)
	for range 10 {
		a := limited.throw(t, in)
		require.Equal(t, 204, known("limited").Status)
		if a.Status != http.StatusNoContent {
			require.Equal(t, 429, a.Status, a.Body)
			require.Contains(t, a.Body, "head_series_limit")
			require.Contains(t, a.Body, "bomb")
		}
	}
	require.LessOrEqual(t, len(limited.taken), 5)

	refused := func() int {
		a := free.throw(t, in)
		if a.Status == http.StatusNoContent {
			return 0
		}
		require.Contains(t, []int{429, 503}, a.Status, a.Body)
		require.Contains(t, a.Body, "memory-watermark")
		require.NotEmpty(t, a.Header.Get("Retry-After"))
		return a.Status
	}
	// What is in use shows by collections, which may be so far apart that one finds room and the
	// next none for anything. So once half is in use there is one behind each request, and the next
	// request waits until its result is seen; before that one in eight is enough.
	for used, n := 0.0, 1; ; n++ {
		if status := refused(); status != 0 {
			require.Equal(t, 429, status, "what is new is refused before all else is")
			break
		}
		if used < 0.5 && n%8 > 0 {
			continue
		}
		before := used
		eventually(t, time.Minute, func() error {
			var err error
			if used, err = memorySeen(t, in); err == nil && used == before {
				err = errors.New("nobody has looked at memory since")
			}
			return err
		})
	}
	require.Equal(t, 204, known("free").Status)
	for range 200 { // four times what is there
		refused()
		known("free")
	}
	t.Logf("%d requests of 2000 series taken, %d refused", len(free.taken), free.next/2000-len(free.taken))
	end()

	in, end = run(320)
	q := r.asks(in)
	eventually(t, time.Minute, func() error { return errors.Join(free.there(t, q), limited.there(t, q)) })
	end()

	in, end = run(160)
	takes := func(b *bomb) {
		t.Helper()
		eventually(t, time.Minute, func() error {
			if a := push(t, in, b.tenant, floats([]string{"__name__", "known"}, sampleAt(now.Add(time.Second), 1))); a.Status != http.StatusNoContent {
				return fmt.Errorf("%d: %s", a.Status, a.Body)
			}
			return nil
		})
	}
	takes(limited)
	eventually(t, time.Minute, func() error { // 429 while opening has left garbage
		if a := free.throw(t, in); a.Status != 503 || !strings.Contains(a.Body, "memory") {
			return fmt.Errorf("%d: %s", a.Status, a.Body)
		}
		return nil
	})
	end()

	in, end = run(480)
	q = r.asks(in)
	eventually(t, time.Minute, func() error { return errors.Join(free.there(t, q), limited.there(t, q)) })
	takes(free)
	end()
}

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/stack"
)

// setWriter writes samples whose values are known, and keeps what was
// acknowledged. Each of its lanes sends its own series, one sample of each at a
// time, until it is told 2xx.
type setWriter struct {
	tenant string
	lanes  int
	series int   // of a lane
	base   int64 // time of the first sample, in ms
	pause  time.Duration

	mu    sync.Mutex
	nodes []string // host:port of those to write to
	sent  []int    // samples of each series, by lane: all of them or their requests were tried
	acked []int
	tries []int                  // by lane
	said  map[string]map[int]int // how many answers of a node had a status; 0: none came
	odd   error                  // an answer that no fault explains
}

// setStep is the time between two samples of a series.
const setStep = 250

// setTimeout is how long an answer is waited for: longer than a node waits for another.
const setTimeout = 4 * time.Second

func newSetWriter(nodes ...*stack.Firnline) *setWriter {
	w := &setWriter{tenant: "set", lanes: 4, series: 10, pause: 20 * time.Millisecond,
		base: time.Now().Add(-10*time.Minute).UnixMilli() / setStep * setStep}
	w.sent, w.acked, w.tries, w.said = make([]int, w.lanes), make([]int, w.lanes), make([]int, w.lanes), map[string]map[int]int{}
	w.use(nodes...)
	return w
}

// use writes to these from now on.
func (w *setWriter) use(nodes ...*stack.Firnline) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes = nil
	for _, n := range nodes {
		w.nodes = append(w.nodes, n.HTTP)
	}
}

// value is that of the n-th sample of a series.
func (w *setWriter) value(lane, series, n int) float64 {
	return float64(lane*1_000_003+series*10_007) + float64(n)/8
}

// run writes until ctx is done. A request that is under way then is not cut off.
func (w *setWriter) run(ctx context.Context) {
	var lanes sync.WaitGroup
	for lane := range w.lanes {
		lanes.Go(func() { w.lane(ctx, lane) })
	}
	lanes.Wait()
}

func (w *setWriter) lane(ctx context.Context, lane int) {
	for n := 0; ctx.Err() == nil; {
		node := w.next(lane, n)
		if w.post(node, lane, n) {
			w.mu.Lock()
			n++
			w.acked[lane] = n
			w.mu.Unlock()
		}
		time.Sleep(w.pause)
	}
}

// next chooses a node, and notes that the n-th samples may be anywhere from now on.
func (w *setWriter) next(lane, n int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent[lane] = n + 1
	w.tries[lane]++
	return w.nodes[rand.IntN(len(w.nodes))]
}

func (w *setWriter) post(node string, lane, n int) bool {
	var series []prompb.TimeSeries
	for s := range w.series {
		series = append(series, floats([]string{"__name__", "set", "series", fmt.Sprintf("%d-%d", lane, s)},
			prompb.Sample{Timestamp: w.base + int64(n)*setStep, Value: w.value(lane, s, n)}))
	}
	ctx, cancel := context.WithTimeout(context.Background(), setTimeout)
	defer cancel()
	a, err := stack.PostSeries(ctx, "http://"+node+"/api/v1/write", ofTenant(w.tenant), series)
	if err != nil {
		a = stack.Posted{} // it is down, or stands still
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.said[node] == nil {
		w.said[node] = map[int]int{}
	}
	w.said[node][a.Status]++
	switch a.Status {
	case 0, http.StatusNoContent, http.StatusServiceUnavailable:
	default:
		w.odd = errors.Join(w.odd, fmt.Errorf("lane %d sample %d at %s: %d: %s", lane, n, node, a.Status, a.Body))
	}
	return a.Status == http.StatusNoContent
}

// answers is how many of a node's had a status.
func (w *setWriter) answers(node *stack.Firnline, status int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said[node.HTTP][status]
}

// acknowledged is how many requests were answered with 2xx.
func (w *setWriter) acknowledged() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.acked {
		n += a
	}
	return n
}

// comesBack waits until each lane has been told, or has given up, what it asked before.
func (w *setWriter) comesBack(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	before := slices.Clone(w.tries)
	w.mu.Unlock()
	eventually(t, time.Minute, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		for lane, n := range w.tries {
			if n == before[lane] {
				return fmt.Errorf("lane %d waits", lane)
			}
		}
		return nil
	})
}

// goesOn waits until more is acknowledged in each lane.
func (w *setWriter) goesOn(t *testing.T, requests int) {
	t.Helper()
	w.mu.Lock()
	goal := append([]int(nil), w.acked...)
	w.mu.Unlock()
	eventually(t, 40*time.Second, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		for lane, before := range goal {
			if w.acked[lane] < before+requests {
				return fmt.Errorf("lane %d is at %d, was at %d; odd answers: %w", lane, w.acked[lane], before, w.odd)
			}
		}
		return nil
	})
}

// verify compares what a querier answers with what was acknowledged and sent:
// all of the first, nothing that isn't of the second, each with its value.
func (w *setWriter) verify(t *testing.T, q *stack.Firnline) error {
	t.Helper()
	got, err := rawSamples(t, q, fmt.Sprintf("set{tenant_id=%q}", w.tenant), "series", time.Now().Add(time.Hour), 2*time.Hour)
	if err != nil {
		return err
	}
	var missing, wrong, alien []string
	for lane := range w.lanes {
		for s := range w.series {
			name := fmt.Sprintf("%d-%d", lane, s)
			for n := range w.sent[lane] {
				at := w.base + int64(n)*setStep
				v, there := got[name][at]
				if !there && n < w.acked[lane] {
					missing = append(missing, fmt.Sprintf("%s #%d", name, n))
				}
				if there && v != strconv.FormatFloat(w.value(lane, s, n), 'f', -1, 64) {
					wrong = append(wrong, fmt.Sprintf("%s #%d: %s", name, n, v))
				}
				delete(got[name], at)
			}
			for at := range got[name] {
				alien = append(alien, fmt.Sprintf("%s at %d", name, at-w.base))
			}
			delete(got, name)
		}
	}
	if len(missing)+len(wrong)+len(alien)+len(got) > 0 {
		return fmt.Errorf("%d missing %.200q, %d wrong %.200q, %d nobody sent %.200q, series nobody sent: %d", len(missing), missing, len(wrong), wrong, len(alien), alien, len(got))
	}
	return nil
}

// inRing is nil once a node sees so many members that take writes.
func inRing(t *testing.T, n *stack.Firnline, want int) error {
	t.Helper()
	_, body := get(t, "http://"+n.HTTP+"/api/v1/ingest/endpoints")
	var groups []struct{ Targets []string }
	if err := json.Unmarshal([]byte(body), &groups); err != nil {
		return fmt.Errorf("%w: %s", err, body)
	}
	if len(groups) != want {
		return fmt.Errorf("%d members, not %d", len(groups), want)
	}
	return nil
}

// TestRingSet writes to three nodes, each series to all of them, while nodes are
// killed, stand still, join and leave for good: everything acknowledged is read
// back, and nothing else.
//
// RELIABILITY I5, I10, P1
func TestRingSet(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var gossip []string
	for range 4 {
		addr, err := stack.FreeAddr()
		require.NoError(t, err)
		gossip = append(gossip, addr)
	}
	launch := func(i int, args ...string) *stack.Firnline {
		args = append([]string{"--ring.join=" + gossip[0], "--ring.join=" + gossip[1], "--receive.replication-factor=3",
			"--receive-forward-timeout=2s", "--objstore.config-file=" + r.objstore, "--shipper.interval=1s"}, args...)
		return r.launch(nil, r.ringArgs(string(rune('a'+i)), gossip[i], args...)...)
	}
	a, b, c := launch(0), launch(1), launch(2, "--ingest.leave-on-stop")
	for _, n := range []*stack.Firnline{a, b, c} {
		eventually(t, 40*time.Second, func() error { return errors.Join(stack.OK(t.Context(), "http://"+n.HTTP+"/-/ready"), inRing(t, n, 3)) })
	}
	w := newSetWriter(a, b, c)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx) }()
	defer func() { stop(); <-done }()
	w.goesOn(t, 20)

	for _, victim := range []*stack.Firnline{a, b} {
		victim.Kill()
		w.goesOn(t, 20)
		require.NoError(t, victim.Restart(t.Context()))
		w.goesOn(t, 10)
	}
	require.NoError(t, c.Freeze())
	w.goesOn(t, 10)
	require.NoError(t, c.Signal(syscall.SIGCONT))
	w.goesOn(t, 10)

	d := launch(3)
	eventually(t, 40*time.Second, func() error { return errors.Join(stack.OK(t.Context(), "http://"+d.HTTP+"/-/ready"), inRing(t, a, 4)) })
	w.use(a, b, c, d)
	w.goesOn(t, 20)
	w.use(a, b, d)
	c.Stop()
	require.NoError(t, c.Err(), "leaving ends well: %s", c.Tail(5))
	w.goesOn(t, 20)
	stop()
	<-done
	require.NoError(t, w.odd)
	t.Logf("%d requests acknowledged, of %d by lane", w.acknowledged(), w.tries)

	q := r.asks(a, b, d, r.store())
	eventually(t, 30*time.Second, func() error { return w.verify(t, q) })
}

// TestKilledUnderLoad kills a node by itself again and again: what it has
// acknowledged is there.
//
// RELIABILITY I1, P1
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	r := bareRig(t)
	in := r.ingest("a", "--ingest.sync=batched")
	w := newSetWriter(in)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx) }()
	defer func() { stop(); <-done }()
	for range 4 {
		w.goesOn(t, 15)
		in.Kill()
		require.NoError(t, in.Restart(t.Context()))
	}
	w.goesOn(t, 5)
	stop()
	<-done
	require.NoError(t, w.odd)
	q := r.asks(in)
	eventually(t, 20*time.Second, func() error { return w.verify(t, q) })
}

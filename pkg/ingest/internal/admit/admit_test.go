package admit_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/admit"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// still is a process whose usage a test sets.
type still struct {
	mu          sync.Mutex
	memory, cpu float64
}

func (s *still) set(memory, cpu float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.memory, s.cpu = memory, cpu
}

func (s *still) Memory() float64 { s.mu.Lock(); defer s.mu.Unlock(); return s.memory }
func (s *still) CPU() float64    { s.mu.Lock(); defer s.mu.Unlock(); return s.cpu }

func newGate(u *still) *admit.Gate {
	return admit.New(admit.Config{MaxRequests: 4, MaxBytes: 1000, MaxFrames: 2, MaxFrameBytes: 500, MemoryWatermark: 0.8, CPUWatermark: 0.9}, 2, u, prometheus.NewRegistry())
}

func requireOverloaded(t *testing.T, err error, names string) {
	t.Helper()
	require.ErrorContains(t, err, names)
	require.Equal(t, refuse.Overloaded, refuse.ReasonOf(err))
}

// RELIABILITY P7: requests and bytes in flight are bounded, and given back.
func TestGateBounds(t *testing.T) {
	g := newGate(&still{})
	var places []*admit.Place
	for range 4 {
		p, err := g.Enter(-1)
		require.NoError(t, err)
		places = append(places, p)
	}
	_, err := g.Enter(0)
	requireOverloaded(t, err, "--ingest.max-concurrent-requests")
	places[0].Leave()

	p, err := g.Enter(600)
	require.NoError(t, err)
	require.NoError(t, p.Grow(400))
	requireOverloaded(t, places[1].Grow(1), "--ingest.max-bytes-in-flight")
	p.Leave()
	require.NoError(t, places[1].Grow(1000))
	_, err = g.Enter(1)
	requireOverloaded(t, err, "--ingest.max-bytes-in-flight")
	for _, p := range places[1:] {
		p.Leave()
	}
	for range 4 { // the refused ones hold nothing
		_, err := g.Enter(250)
		require.NoError(t, err)
	}
}

// RELIABILITY P7, P8: frames of other nodes are bounded, too, and not held up by
// requests, which may wait for other nodes' frames.
func TestFramesHaveTheirOwnBounds(t *testing.T) {
	reg := prometheus.NewRegistry()
	u := &still{}
	g := admit.New(admit.Config{MaxRequests: 2, MaxBytes: 1000, MaxFrames: 2, MaxFrameBytes: 500, MemoryWatermark: 0.8}, 2, u, reg)
	for range 2 {
		_, err := g.Enter(500)
		require.NoError(t, err)
	}
	_, err := g.Enter(0)
	requireOverloaded(t, err, "--ingest.max-concurrent-requests")
	one, err := g.EnterFrame(300)
	require.NoError(t, err)
	requireOverloaded(t, one.Grow(201), "--ingest.max-frame-bytes-in-flight")
	require.NoError(t, one.Grow(200))
	_, err = g.EnterFrame(1)
	requireOverloaded(t, err, "--ingest.max-frame-bytes-in-flight")
	two, err := g.EnterFrame(0)
	require.NoError(t, err)
	_, err = g.EnterFrame(0)
	requireOverloaded(t, err, "--ingest.max-concurrent-frames")
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP firnline_ingest_frame_bytes_in_flight Memory set aside for messages of other nodes being worked on.
# TYPE firnline_ingest_frame_bytes_in_flight gauge
firnline_ingest_frame_bytes_in_flight 500
# HELP firnline_ingest_frames_in_flight Messages of other nodes being worked on.
# TYPE firnline_ingest_frames_in_flight gauge
firnline_ingest_frames_in_flight 2
# HELP firnline_ingest_overloaded_total Write requests and messages of other nodes turned away, by what there was too little of.
# TYPE firnline_ingest_overloaded_total counter
firnline_ingest_overloaded_total{lack="frame-bytes"} 2
firnline_ingest_overloaded_total{lack="frames"} 1
firnline_ingest_overloaded_total{lack="requests"} 1
`), "firnline_ingest_frame_bytes_in_flight", "firnline_ingest_frames_in_flight", "firnline_ingest_overloaded_total"))
	one.Leave()
	two.Leave()
	_, err = g.EnterFrame(500)
	require.NoError(t, err)
}

// RELIABILITY P7: messages whose size is not known are read while the largest would fit; others wait
// as long as their senders do.
func TestReadsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := admit.New(admit.Config{MaxRequests: 3, MaxBytes: 1000, MaxFrames: 2, MaxFrameBytes: 500, MaxReadBytes: 200}, 2, &still{}, prometheus.NewRegistry())
		var done []func()
		for range 2 {
			d, err := g.AwaitRead(t.Context(), 100)
			require.NoError(t, err)
			done = append(done, d)
		}
		patient := make(chan error)
		go func() {
			d, err := g.AwaitRead(t.Context(), 100)
			if err == nil {
				defer d()
			}
			patient <- err
		}()
		synctest.Wait()
		_, err := g.AwaitRead(t.Context(), 100)
		requireOverloaded(t, err, "--ingest.max-concurrent-requests")
		done[0]()
		require.NoError(t, <-patient)

		synctest.Wait()
		done[1]()
		d, err := g.AwaitRead(t.Context(), 200)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = g.AwaitRead(ctx, 100)
		requireOverloaded(t, err, "--ingest.max-read-bytes-in-flight=200B")
		d()
	})
}

// A limit that one permitted request can never keep is a mistake.
func TestValidate(t *testing.T) {
	good := admit.Config{MaxRequests: 1, MaxBytes: 96 << 20, MaxFrames: 1, MaxFrameBytes: 64 << 20}
	require.NoError(t, good.Validate(96<<20, 64<<20))
	require.ErrorContains(t, good.Validate(96<<20+1, 0), "--ingest.max-bytes-in-flight=96MiB: one request may take 100663297 bytes")
	good.MaxReadBytes = 1 << 20
	require.NoError(t, good.ValidateMessage(1<<20))
	require.ErrorContains(t, good.ValidateMessage(1<<20+1), "--ingest.max-read-bytes-in-flight=1MiB: one message may take 1048577 bytes (--grpc-server-max-recv-size)")
	require.ErrorContains(t, good.Validate(0, 64<<20+1), "--ingest.max-frame-bytes-in-flight=64MiB: one message")
	none := admit.Config{MemoryWatermark: 2, CPUWatermark: -1}
	for _, want := range []string{"--ingest.max-concurrent-requests=0", "--ingest.memory-watermark", "--ingest.cpu-watermark"} {
		require.ErrorContains(t, none.Validate(0, 0), want)
	}
}

// RELIABILITY P7: short of memory or CPU, writes are refused early, and only then.
func TestWatermarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &still{}
		g := newGate(u)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _ = g.Run(ctx) }()
		enter := func() error {
			p, err := g.Enter(1)
			if err == nil {
				p.Leave()
			}
			return err
		}
		require.NoError(t, enter())
		require.Nil(t, g.Crowded(0.5))
		u.set(0.75, 0)
		time.Sleep(1100 * time.Millisecond)
		require.NoError(t, enter(), "what takes memory for long is refused first")
		require.Nil(t, g.Crowded(0.95))
		require.Equal(t, "75% of the memory limit is in use, the most for this is 72% (--ingest.memory-watermark=0.8)", g.Crowded(0.9).String())
		u.set(0.81, 0)
		time.Sleep(1100 * time.Millisecond)
		requireOverloaded(t, enter(), "--ingest.memory-watermark")
		_, err := g.EnterFrame(1)
		requireOverloaded(t, err, "--ingest.memory-watermark")
		u.set(0.79, 1)
		time.Sleep(1100 * time.Millisecond)
		require.NoError(t, enter(), "one busy second is no overload")
		time.Sleep(20 * time.Second)
		require.NoError(t, enter(), "as many as there are CPUs go on")
		for range 2 {
			p, err := g.Enter(1)
			require.NoError(t, err)
			defer p.Leave()
		}
		requireOverloaded(t, enter(), "--ingest.cpu-watermark")
		u.set(0, 0)
		time.Sleep(3 * time.Second)
		require.NoError(t, enter())
	})
}

func TestProcessGauges(t *testing.T) {
	p := admit.NewProcessGauges()
	before := p.Memory()
	held := make([]byte, 64<<20)
	for i := range held {
		held[i] = 1
	}
	for p.CPU() == 0 { // burn, until it is seen
	}
	require.Positive(t, before)
	require.Less(t, before, 1.0)
	require.NotEmpty(t, held)
}

// Package admit keeps ingest alive: it bounds the requests in flight and the
// memory that they may take, and turns requests away while the process is short of
// memory or CPU. Who is turned away has lost nothing: senders try again.
//
// What other nodes send to the owner that this process is has bounds of its own. A
// sender's request keeps its place while it waits for other nodes; if what these
// send each other had to wait for the same places, nodes that are full of such
// requests would wait for one another.
package admit

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/grafana/dskit/flagext"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/semaphore"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// Config is what an operator may set; RegisterFlags fills in the defaults.
type Config struct {
	MaxRequests     int
	MaxBytes        flagext.Bytes // of the bodies of all requests in flight, compressed and decoded
	MaxFrames       int           // from other nodes
	MaxFrameBytes   flagext.Bytes // of all frames in flight, compressed and decoded
	MaxReadBytes    flagext.Bytes // of messages that are being read and whose size is not known before
	MemoryWatermark float64       // of live memory, as a share of the limit; 0: none
	CPUWatermark    float64       // of the CPU time there is; 0: none
}

// Names of flags that errors speak of.
const (
	flagRequests   = "ingest.max-concurrent-requests"
	flagBytes      = "ingest.max-bytes-in-flight"
	flagFrames     = "ingest.max-concurrent-frames"
	flagFrameBytes = "ingest.max-frame-bytes-in-flight"
	flagReadBytes  = "ingest.max-read-bytes-in-flight"
)

// RegisterFlags sets the defaults and registers the flags.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	c.MaxBytes = 256 << 20
	fs.IntVar(&c.MaxRequests, flagRequests, 512,
		"Write requests at once; more are answered with 503, and senders try again.")
	fs.Var(&c.MaxBytes, flagBytes,
		"Memory for the bodies of all write requests at once, compressed and decoded. What does not fit is answered with 503.")
	c.MaxFrameBytes = 256 << 20
	fs.IntVar(&c.MaxFrames, flagFrames, 2048,
		"Messages of other nodes for the owner that this one is, at once; more are refused, and their senders count this node as failed for them.")
	fs.Var(&c.MaxFrameBytes, flagFrameBytes,
		"Memory for all messages of other nodes at once, compressed and decoded, beside --ingest.max-bytes-in-flight. What does not fit is refused.")
	c.MaxReadBytes = 512 << 20
	fs.Var(&c.MaxReadBytes, flagReadBytes,
		"Memory for all messages that are being read over gRPC and don't say before how large they are, as those of OTLP and of Thanos' routers: each may become as large as --grpc-server-max-recv-size, and so many are read at once; more wait. Once read they count for --ingest.max-bytes-in-flight.")
	fs.Float64Var(&c.MemoryWatermark, "ingest.memory-watermark", 0.85,
		"Share of the memory limit (GOMEMLIMIT, else the machine's memory) above which writes are answered with 503: what is still in use after garbage collection counts. Series that are new are answered with 429 from nine tenths of it on. 0 turns it off.")
	fs.Float64Var(&c.CPUWatermark, "ingest.cpu-watermark", 0.95,
		"Share of the CPUs above which no more writes run at once than there are CPUs; others are answered with 503. 0 turns it off.")
}

// Validate lists everything that is wrong. request and frame are what the largest
// of each may take: less room than that would refuse it for ever.
func (c *Config) Validate(request, frame int64) error {
	var errs []error
	if c.MaxRequests < 1 || c.MaxFrames < 1 {
		errs = append(errs, fmt.Errorf("--%s=%d, --%s=%d: want at least 1", flagRequests, c.MaxRequests, flagFrames, c.MaxFrames))
	}
	if int64(c.MaxBytes) < request {
		errs = append(errs, fmt.Errorf("--%s=%s: one request may take %d bytes (--ingest.max-body-bytes, --ingest.max-decoded-bytes and 8MiB to decompress it); want at least that", flagBytes, &c.MaxBytes, request))
	}
	if int64(c.MaxFrameBytes) < frame {
		errs = append(errs, fmt.Errorf("--%s=%s: one message of another node may take %d bytes (twice --receive.forward-max-frame-bytes, or --ingest.max-decoded-bytes); want at least that", flagFrameBytes, &c.MaxFrameBytes, frame))
	}
	for _, w := range []struct {
		flag  string
		value float64
	}{{"memory", c.MemoryWatermark}, {"cpu", c.CPUWatermark}} {
		if w.value < 0 || w.value > 1 {
			errs = append(errs, fmt.Errorf("--ingest.%s-watermark: want a share between 0 and 1, got %v", w.flag, w.value))
		}
	}
	return errors.Join(errs...)
}

// ValidateMessage is Validate for the largest message that gRPC reads.
func (c *Config) ValidateMessage(bytes int64) error {
	if int64(c.MaxReadBytes) < bytes {
		return fmt.Errorf("--%s=%s: one message may take %d bytes (--grpc-server-max-recv-size); want at least that", flagReadBytes, &c.MaxReadBytes, bytes)
	}
	return nil
}

// Gauges tell how the process stands. Both are shares; a limit that is not known gives 0.
type Gauges interface {
	Memory() float64 // live memory of the memory limit
	CPU() float64    // CPU time since the last call of the CPU time there was
}

// Gate admits requests, and frames of other nodes. Safe for concurrent use.
type Gate struct {
	cfg     Config
	cpus    int64
	gauges  Gauges
	metrics *metrics

	requests, frames door
	reading          reading
	memory           atomic.Uint64 // in use, thousandths of the limit
	tightCPU         atomic.Uint64 // the same of the CPUs while above the watermark, else 0
}

// door bounds one kind of what is worked on.
type door struct {
	kind            kind
	most, mostBytes int64
	now, bytes      atomic.Int64
}

// kind is how messages and metrics speak of what comes through a door.
type kind struct {
	many, bodies        string
	lackMany, lackBytes string
	flagMany, flagBytes string
}

type metrics struct {
	refused   *prometheus.CounterVec
	watermark *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer, g *Gate) *metrics {
	f := promauto.With(reg)
	gauge := func(name, help string, v *atomic.Int64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: "firnline_ingest_" + name, Help: help}, func() float64 { return float64(v.Load()) })
	}
	gauge("requests_in_flight", "Write requests being worked on.", &g.requests.now)
	gauge("bytes_in_flight", "Memory set aside for the bodies of write requests being worked on.", &g.requests.bytes)
	gauge("frames_in_flight", "Messages of other nodes being worked on.", &g.frames.now)
	gauge("frame_bytes_in_flight", "Memory set aside for messages of other nodes being worked on.", &g.frames.bytes)
	gauge("messages_being_read", "Messages over gRPC that are being read, or wait for that, and don't say before how large they are.", &g.reading.now)
	return &metrics{
		refused: f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_ingest_overloaded_total",
			Help: "Write requests and messages of other nodes turned away, by what there was too little of."}, []string{"lack"}),
		watermark: f.NewGaugeVec(prometheus.GaugeOpts{Name: "firnline_ingest_usage_ratio",
			Help: "What is in use of a resource, as the watermarks see it."}, []string{"resource"}),
	}
}

// New makes a Gate; its watermarks see nothing before Run. cpus is how many the process may use.
func New(cfg Config, cpus int, gauges Gauges, reg prometheus.Registerer) *Gate {
	g := &Gate{cfg: cfg, cpus: int64(cpus), gauges: gauges}
	g.requests.kind = kind{"write requests", "bodies", "requests", "bytes", flagRequests, flagBytes}
	g.requests.most, g.requests.mostBytes = int64(cfg.MaxRequests), int64(cfg.MaxBytes)
	g.frames.kind = kind{"messages of other nodes", "messages of other nodes", "frames", "frame-bytes", flagFrames, flagFrameBytes}
	g.frames.most, g.frames.mostBytes = int64(cfg.MaxFrames), int64(cfg.MaxFrameBytes)
	g.reading.room = semaphore.NewWeighted(int64(cfg.MaxReadBytes))
	g.metrics = newMetrics(reg, g)
	return g
}

// lookEvery is how often memory is looked at. In a second new series may take more than
// there is between the shares of the watermark where they and all else are refused.
const lookEvery = 100 * time.Millisecond

// Run looks at memory ten times a second, and at CPU each second, until ctx is done.
func (g *Gate) Run(ctx context.Context) error {
	memory, cpu := time.NewTicker(lookEvery), time.NewTicker(time.Second)
	defer memory.Stop()
	defer cpu.Stop()
	var busy float64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-memory.C:
			used := g.gauges.Memory()
			g.metrics.watermark.WithLabelValues("memory").Set(used)
			g.memory.Store(uint64(used * 1000))
		case <-cpu.C:
			busy += (g.gauges.CPU() - busy) / 4 // smoothed: a busy second is no overload
			g.metrics.watermark.WithLabelValues("cpu").Set(busy)
			g.tightCPU.Store(above(busy, g.cfg.CPUWatermark))
		}
	}
}

// above is the share in thousandths if it is above a watermark, else 0.
func above(share, watermark float64) uint64 {
	if watermark == 0 || share <= watermark {
		return 0
	}
	return uint64(share * 1000)
}

// Crowded tells how much memory is in use if that is above a share of the watermark, else nil. What
// takes memory for long, such as a series that is new, is refused at a lower share than what
// gives it back soon, so that the rest goes on for longer.
func (g *Gate) Crowded(share float64) fmt.Stringer {
	memory, mark := float64(g.memory.Load())/1000, share*g.cfg.MemoryWatermark
	if mark == 0 || memory <= mark {
		return nil
	}
	return &crowd{memory, mark, g.cfg.MemoryWatermark}
}

// crowd is worded only where somebody is told of it: it is asked about for each series that is new.
type crowd struct{ used, most, watermark float64 }

func (c *crowd) String() string {
	return fmt.Sprintf("%.0f%% of the memory limit is in use, the most for this is %.0f%% (--ingest.memory-watermark=%v)", c.used*100, c.most*100, c.watermark)
}

// Place is that of a request or frame among those in flight. It is used by one goroutine.
type Place struct {
	gate  *Gate
	door  *door
	bytes int64
}

// Enter asks for a place for a request whose body has so many bytes (-1: not
// known). The error is a *refuse.Error with reason Overloaded. A Place must be left.
func (g *Gate) Enter(declared int64) (*Place, error) { return g.enter(&g.requests, declared) }

// EnterFrame asks for a place for what another node has for the owner that this
// process is. It never waits for another node: that is why it may have a place of its own.
func (g *Gate) EnterFrame(bytes int64) (*Place, error) { return g.enter(&g.frames, bytes) }

func (g *Gate) enter(d *door, declared int64) (*Place, error) {
	n := d.now.Add(1)
	lack, detail, crowded := "", "", g.Crowded(1)
	switch {
	case n > d.most:
		lack, detail = d.kind.lackMany, fmt.Sprintf("%d %s are being worked on, limit %d (--%s)", n-1, d.kind.many, d.most, d.kind.flagMany)
	case crowded != nil:
		lack, detail = "memory", crowded.String()
	case g.tightCPU.Load() > 0 && n > g.cpus:
		lack, detail = "cpu", fmt.Sprintf("the CPUs are %.0f%% in use, watermark %.0f%% (--ingest.cpu-watermark)",
			float64(g.tightCPU.Load())/10, g.cfg.CPUWatermark*100)
	}
	if lack != "" {
		d.now.Add(-1)
		return nil, g.refuse(lack, detail)
	}
	p := &Place{gate: g, door: d}
	if err := p.Grow(max(declared, 0)); err != nil {
		p.Leave()
		return nil, err
	}
	return p, nil
}

// reading bounds messages while they are read.
type reading struct {
	room *semaphore.Weighted // bytes
	now  atomic.Int64
}

// AwaitRead waits until there is room for a message of so many bytes, the most it may have, and
// sets it aside until done is called. As many may wait as there may be requests. The room
// is held for no longer than a sender takes to send, and nobody who has it waits for another node.
func (g *Gate) AwaitRead(ctx context.Context, most int64) (done func(), err error) {
	r := &g.reading
	if n := r.now.Add(1); n > g.requests.most {
		r.now.Add(-1)
		return nil, g.refuse("reads", fmt.Sprintf("%d messages are being read or wait for that, limit %d (--%s)", n-1, g.requests.most, flagRequests))
	}
	if err := r.room.Acquire(ctx, most); err != nil {
		r.now.Add(-1)
		limit := g.cfg.MaxReadBytes
		return nil, g.refuse("read-bytes", fmt.Sprintf("there was no room to read a message in time (--%s=%s)", flagReadBytes, &limit))
	}
	return func() {
		r.room.Release(most)
		r.now.Add(-1)
	}, nil
}

// Grow asks for memory before it is taken. Leave gives it back.
func (p *Place) Grow(bytes int64) error {
	d := p.door
	limit := flagext.Bytes(d.mostBytes)
	for {
		now := d.bytes.Load()
		if bytes > d.mostBytes-now {
			return p.gate.refuse(d.kind.lackBytes, fmt.Sprintf("%d bytes of %s are in memory, and %d more are above the limit %s (--%s)",
				now, d.kind.bodies, bytes, &limit, d.kind.flagBytes))
		}
		if d.bytes.CompareAndSwap(now, now+bytes) {
			p.bytes += bytes
			return nil
		}
	}
}

// Leave gives the place back.
func (p *Place) Leave() {
	p.door.bytes.Add(-p.bytes)
	p.door.now.Add(-1)
	p.bytes = 0
}

func (g *Gate) refuse(lack, detail string) error {
	g.metrics.refused.WithLabelValues(lack).Inc()
	return &refuse.Error{Reason: refuse.Overloaded, Detail: detail + "; send it again later"}
}

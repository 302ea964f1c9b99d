// Package admit keeps ingest alive: it bounds the requests in flight and the
// memory that they may take, and turns requests away while the process is short of
// memory or CPU. Who is turned away has lost nothing: senders try again.
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

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// Config is what an operator may set; RegisterFlags fills in the defaults.
type Config struct {
	MaxRequests     int
	MaxBytes        flagext.Bytes // of the bodies of all requests in flight, compressed and decoded
	MemoryWatermark float64       // of live memory, as a share of the limit; 0: none
	CPUWatermark    float64       // of the CPU time there is; 0: none
}

// RegisterFlags sets the defaults and registers the flags.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	c.MaxBytes = 256 << 20
	fs.IntVar(&c.MaxRequests, "ingest.max-concurrent-requests", 512,
		"Write requests at once; more are answered with 503, and senders try again.")
	fs.Var(&c.MaxBytes, "ingest.max-bytes-in-flight",
		"Memory for the bodies of all write requests at once, compressed and decoded. What does not fit is answered with 503.")
	fs.Float64Var(&c.MemoryWatermark, "ingest.memory-watermark", 0.85,
		"Share of the memory limit (GOMEMLIMIT, else the machine's memory) above which writes are answered with 503: what is still in use after garbage collection counts. 0 turns it off.")
	fs.Float64Var(&c.CPUWatermark, "ingest.cpu-watermark", 0.95,
		"Share of the CPUs above which no more writes run at once than there are CPUs; others are answered with 503. 0 turns it off.")
}

// Validate lists everything that is wrong.
func (c *Config) Validate() error {
	var errs []error
	if c.MaxRequests < 1 {
		errs = append(errs, fmt.Errorf("--ingest.max-concurrent-requests: want at least 1, got %d", c.MaxRequests))
	}
	if c.MaxBytes < 1<<20 {
		errs = append(errs, fmt.Errorf("--ingest.max-bytes-in-flight: want at least 1MiB, got %s", &c.MaxBytes))
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

// Gauges tell how the process stands. Both are shares; a limit that is not known gives 0.
type Gauges interface {
	Memory() float64 // live memory of the memory limit
	CPU() float64    // CPU time since the last call of the CPU time there was
}

// Gate admits requests. Safe for concurrent use.
type Gate struct {
	cfg     Config
	cpus    int64
	gauges  Gauges
	metrics *metrics

	requests, bytes atomic.Int64
	tightMemory     atomic.Uint64 // share in thousandths while above the watermark, else 0
	tightCPU        atomic.Uint64
}

type metrics struct {
	requests, bytes prometheus.GaugeFunc
	refused         *prometheus.CounterVec
	watermark       *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer, g *Gate) *metrics {
	f := promauto.With(reg)
	return &metrics{
		requests: f.NewGaugeFunc(prometheus.GaugeOpts{Name: "firnline_ingest_requests_in_flight",
			Help: "Write requests being worked on."}, func() float64 { return float64(g.requests.Load()) }),
		bytes: f.NewGaugeFunc(prometheus.GaugeOpts{Name: "firnline_ingest_bytes_in_flight",
			Help: "Memory set aside for the bodies of write requests being worked on."}, func() float64 { return float64(g.bytes.Load()) }),
		refused: f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_ingest_overloaded_total",
			Help: "Write requests turned away before they were read, by what there was too little of."}, []string{"lack"}),
		watermark: f.NewGaugeVec(prometheus.GaugeOpts{Name: "firnline_ingest_usage_ratio",
			Help: "What is in use of a resource, as the watermarks see it."}, []string{"resource"}),
	}
}

// New makes a Gate; its watermarks see nothing before Run. cpus is how many the process may use.
func New(cfg Config, cpus int, gauges Gauges, reg prometheus.Registerer) *Gate {
	g := &Gate{cfg: cfg, cpus: int64(cpus), gauges: gauges}
	g.metrics = newMetrics(reg, g)
	return g
}

// Run looks at memory and CPU each second until ctx is done.
func (g *Gate) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var cpu float64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		memory := g.gauges.Memory()
		cpu += (g.gauges.CPU() - cpu) / 4 // smoothed: a busy second is no overload
		g.metrics.watermark.WithLabelValues("memory").Set(memory)
		g.metrics.watermark.WithLabelValues("cpu").Set(cpu)
		g.tightMemory.Store(above(memory, g.cfg.MemoryWatermark))
		g.tightCPU.Store(above(cpu, g.cfg.CPUWatermark))
	}
}

// above is the share in thousandths if it is above a watermark, else 0.
func above(share, watermark float64) uint64 {
	if watermark == 0 || share <= watermark {
		return 0
	}
	return uint64(share * 1000)
}

// Place is a request's among those in flight. It is used by one goroutine.
type Place struct {
	gate  *Gate
	bytes int64
}

// Enter asks for a place for a request whose body has so many bytes (-1: not
// known). The error is a *refuse.Error with reason Overloaded. A Place must be left.
func (g *Gate) Enter(declared int64) (*Place, error) {
	n := g.requests.Add(1)
	lack, detail := "", ""
	switch {
	case n > int64(g.cfg.MaxRequests):
		lack, detail = "requests", fmt.Sprintf("%d write requests are being worked on, limit %d (--ingest.max-concurrent-requests)", n-1, g.cfg.MaxRequests)
	case g.tightMemory.Load() > 0:
		lack, detail = "memory", fmt.Sprintf("%.0f%% of the memory limit is in use, watermark %.0f%% (--ingest.memory-watermark)",
			float64(g.tightMemory.Load())/10, g.cfg.MemoryWatermark*100)
	case g.tightCPU.Load() > 0 && n > g.cpus:
		lack, detail = "cpu", fmt.Sprintf("the CPUs are %.0f%% in use, watermark %.0f%% (--ingest.cpu-watermark)",
			float64(g.tightCPU.Load())/10, g.cfg.CPUWatermark*100)
	}
	if lack != "" {
		g.requests.Add(-1)
		return nil, g.refuse(lack, detail)
	}
	p := &Place{gate: g}
	if err := p.Grow(max(declared, 0)); err != nil {
		p.Leave()
		return nil, err
	}
	return p, nil
}

// Grow asks for memory before it is taken. Leave gives it back.
func (p *Place) Grow(bytes int64) error {
	g := p.gate
	for {
		now := g.bytes.Load()
		if bytes > int64(g.cfg.MaxBytes)-now {
			return g.refuse("bytes", fmt.Sprintf("%d bytes of bodies are in memory, and %d more are above the limit %s (--ingest.max-bytes-in-flight)",
				now, bytes, &g.cfg.MaxBytes))
		}
		if g.bytes.CompareAndSwap(now, now+bytes) {
			p.bytes += bytes
			return nil
		}
	}
}

// Leave gives the place back.
func (p *Place) Leave() {
	p.gate.bytes.Add(-p.bytes)
	p.gate.requests.Add(-1)
	p.bytes = 0
}

func (g *Gate) refuse(lack, detail string) error {
	g.metrics.refused.WithLabelValues(lack).Inc()
	return &refuse.Error{Reason: refuse.Overloaded, Detail: detail + "; send it again later"}
}

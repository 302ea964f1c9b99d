package admit

import (
	"math"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// ProcessGauges measure this process.
type ProcessGauges struct {
	limit   float64 // bytes
	samples []runtimemetrics.Sample

	lastCPU  time.Duration
	lastWall time.Time
}

// NewProcessGauges takes the memory limit that is in force now.
func NewProcessGauges() *ProcessGauges {
	limit := debug.SetMemoryLimit(-1) // reads it
	if limit == math.MaxInt64 {
		if system, err := memlimit.FromSystem(); err == nil && system < math.MaxInt64 {
			limit = int64(system)
		}
	}
	return &ProcessGauges{
		limit: float64(limit),
		samples: []runtimemetrics.Sample{
			{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
			{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
		},
		lastCPU:  cpuTime(),
		lastWall: time.Now(),
	}
}

// Limit is the memory limit in bytes.
func (p *ProcessGauges) Limit() int64 { return int64(p.limit) }

// Memory implements Gauges: what was live at the last garbage collection, and
// what is not heap. Garbage does not count: it grows up to the limit by design.
func (p *ProcessGauges) Memory() float64 {
	runtimemetrics.Read(p.samples)
	v := func(i int) float64 { return float64(p.samples[i].Value.Uint64()) }
	outside := v(1) - v(2) - v(3) - v(4) - v(5)
	return (v(0) + outside) / p.limit
}

// Held is all memory that the process holds, garbage included. It is above the limit
// only when collecting garbage can't keep it below.
func (p *ProcessGauges) Held() float64 {
	runtimemetrics.Read(p.samples)
	return float64(p.samples[1].Value.Uint64()-p.samples[4].Value.Uint64()) / p.limit
}

// CPU implements Gauges.
func (p *ProcessGauges) CPU() float64 {
	cpu, wall := cpuTime(), time.Now()
	spent, passed := cpu-p.lastCPU, wall.Sub(p.lastWall)
	p.lastCPU, p.lastWall = cpu, wall
	if passed <= 0 {
		return 0
	}
	return float64(spent) / float64(passed) / float64(runtime.GOMAXPROCS(0))
}

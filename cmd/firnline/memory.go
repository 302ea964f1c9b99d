package main

import (
	"flag"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// memoryConfig is what an operator may set of the Go runtime's memory.
type memoryConfig struct {
	Auto  bool
	Ratio float64
}

// RegisterFlags implements configurer.
func (c *memoryConfig) RegisterFlags(fs *flag.FlagSet) {
	fs.BoolVar(&c.Auto, "enable-auto-gomemlimit", true,
		"Tell the Go runtime to stay below the memory limit of the container (cgroup), unless GOMEMLIMIT is set.")
	fs.Float64Var(&c.Ratio, "auto-gomemlimit.ratio", 0.9, "Share of the container's memory limit that the Go runtime may use.")
}

// Validate implements configurer.
func (c *memoryConfig) Validate() error {
	if c.Ratio <= 0 || c.Ratio > 1 {
		return fmt.Errorf("--auto-gomemlimit.ratio: want more than 0 and at most 1, got %v", c.Ratio)
	}
	return nil
}

// apply sets the limit. Without a cgroup there is none to go by, and nothing happens.
func (c *memoryConfig) apply(log *slog.Logger) {
	if !c.Auto {
		return
	}
	limit, err := memlimit.Set(memlimit.WithRatio(c.Ratio), memlimit.WithProvider(memlimit.FromCgroup))
	switch {
	case err != nil:
		log.Debug("no memory limit of a container found", "err", err)
	case limit > 0 && limit < math.MaxInt64:
		log.Info("memory limit for the Go runtime set", "bytes", limit)
	}
}

// lessGarbage lets less garbage gather before it is collected than Go does by
// itself, unless the operator has said how much.
func lessGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(40)
	}
}

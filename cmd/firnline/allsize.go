package main

import (
	"log/slog"
	"runtime/debug"
	"strconv"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/alecthomas/units"
)

// share is a flag whose default is a part of the memory there is.
type share struct {
	flag        string
	of          uint64 // one of so many
	least, most uint64 // bytes
	unit        uint64 // bytes that one of the flag's units stands for; 1: it is in bytes
}

// shares are what `firnline all` gives to each that may take much memory. The
// larger ones are taken by what runs now and then, so that together they may be
// half of the memory; heads have the rest.
func shares() []share {
	const mib = 1 << 20
	return []share{
		{"index-cache-size", 32, 16 * mib, 1024 * mib, 1},
		{"store.notes.cache-size", 128, 4 * mib, 64 * mib, 1},
		{"chunk-pool-size", 8, 64 * mib, 8192 * mib, 1},
		{"store.chunk-window-size", 128, 8 * mib, 64 * mib, 1},
		{"query.max-samples", 8, 1_000_000 * 16, 50_000_000 * 16, 16}, // a sample in an evaluation is a time and a value
		{"ingest.max-bytes-in-flight", 16, 112 * mib, 256 * mib, 1},   // least: the largest request that is taken
		{"compact.memory", 8, 64 * mib, 512 * mib, 1},
	}
}

// autoSize is the default that help shows of shares.
const autoSize = "auto"

// value is what the flag is set to where there is so much memory.
func (s share) value(memory uint64) string {
	n := min(max(memory/s.of, s.least), s.most)
	if s.unit > 1 {
		return strconv.FormatUint(n/s.unit, 10)
	}
	return strconv.FormatUint(n>>20, 10) + "MiB"
}

// machineMemory is how much memory this process may use: what GOMEMLIMIT says,
// else the container's limit, else the machine's memory. 0: not known.
func machineMemory() uint64 {
	best := uint64(0)
	take := func(n uint64) {
		if n > 0 && n < 1<<62 && (best == 0 || n < best) {
			best = n
		}
	}
	take(uint64(debug.SetMemoryLimit(-1))) // reads it
	if n, err := memlimit.FromCgroup(); err == nil {
		take(n)
	}
	if n, err := memlimit.FromSystem(); err == nil {
		take(n)
	}
	return best
}

// fallbackMemory is taken where nothing can be found out.
const fallbackMemory = 2 << 30

// size gives each share that was not set its part of the memory.
func size(f *flags, memory uint64) error {
	if memory == 0 {
		memory = fallbackMemory
	}
	for _, s := range shares() {
		if err := f.derive(s.flag, s.value(memory)); err != nil {
			return err
		}
	}
	return nil
}

// logSizes says what was decided.
func logSizes(log *slog.Logger, f map[string]string, memory uint64) {
	args := []any{"memory", units.Base2Bytes(memory).String()}
	for _, s := range shares() {
		args = append(args, s.flag, f[s.flag])
	}
	log.Info("limits by the memory there is; each can be set by its flag", args...)
}

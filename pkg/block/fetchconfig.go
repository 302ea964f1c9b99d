package block

import (
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"
)

// Values of FetcherConfig.Strategy.
const (
	StrategyRecursive  = "recursive"
	StrategyConcurrent = "concurrent"
)

// FetcherConfig is how a component finds its blocks, and which of them are its.
type FetcherConfig struct {
	Concurrency int            // requests at once
	Strategy    string         // StrategyRecursive or StrategyConcurrent
	GoneDelay   model.Duration // between the two times that a block must be missing

	ListInterval model.Duration // how often one of those who publish compares the manifest with a listing
	Owner        string         // who this process is in leases, if it is one that publishes; the same over restarts. "": it only reads

	MinTime, MaxTime         TimeBound
	ConsistencyDelay         model.Duration
	IgnoreDeletionMarksDelay model.Duration
	Selector                 string // relabel rules in YAML
	SelectorFile             string // or a file with them

	// IgnoreLabels are external labels that the selector doesn't see, so that the
	// replicas that a compactor merges come to the same one. No flag of its own.
	IgnoreLabels []string

	KeepMarked     bool // blocks marked for deletion stay in the view, however long
	KeepDuplicates bool // so do blocks that others cover
}

// RegisterFlags sets the defaults, those of a store gateway, and registers Thanos' flags.
func (c *FetcherConfig) RegisterFlags(fs *flag.FlagSet) {
	c.ConsistencyDelay = 0
	c.IgnoreDeletionMarksDelay = model.Duration(24 * time.Hour)
	c.GoneDelay = model.Duration(5 * time.Minute)
	fs.IntVar(&c.Concurrency, "block-meta-fetch-concurrency", 32, "How many requests for the metadata of blocks are sent to the bucket at once.")
	fs.StringVar(&c.Strategy, "block-discovery-strategy", StrategyRecursive, "How blocks are found: recursive lists the whole bucket at once, 1,000 objects a request; concurrent lists the blocks and then each block by itself, which is only better where blocks have hundreds of objects.")
	fs.Var(&c.GoneDelay, "block-gone-delay", "A block that no longer shows in the bucket's listing is given up only when it is still missing this long after.")
	c.ListInterval = model.Duration(15 * time.Minute)
	fs.Var(&c.ListInterval, "block-list-interval", "How often the whole bucket is listed to find what the bucket's manifest lacks: blocks and marks of programs that don't announce them. A compactor does so, one of all of them; a reader lists the bucket itself, each time it looks for blocks, only where no manifest has been compared with a listing for twice as long.")
	fs.Var(&c.MinTime, "min-time", "Leave out blocks whose data ends before this: a time (2026-01-31T00:00:00Z) or a duration back from now (-6w). Default: no bound.")
	fs.Var(&c.MaxTime, "max-time", "Leave out blocks whose data begins after this: a time or a duration back from now. Default: no bound.")
	fs.Var(&c.ConsistencyDelay, "consistency-delay", "Leave out blocks that have been in the bucket for less than this. Compacted blocks are exempt.")
	fs.Var(&c.IgnoreDeletionMarksDelay, "ignore-deletion-marks-delay", "Go on with blocks marked for deletion for this long after the mark, until their replacements are known everywhere. It must be shorter than the compactor's --delete-delay.")
	fs.StringVar(&c.Selector, "selector.relabel-config", "", "Relabel rules in YAML that choose blocks by their external labels and __block_id. Actions: keep, drop, hashmod.")
	fs.StringVar(&c.SelectorFile, "selector.relabel-config-file", "", "File with the relabel rules of --selector.relabel-config.")
}

// Validate names the flag that can't be right.
func (c *FetcherConfig) Validate() error {
	_, err := loadSelector(c.Selector, c.SelectorFile)
	if c.Concurrency < 1 {
		err = errors.Join(err, fmt.Errorf("--block-meta-fetch-concurrency=%d: give 1 or more", c.Concurrency))
	}
	if c.Strategy != StrategyRecursive && c.Strategy != StrategyConcurrent {
		err = errors.Join(err, fmt.Errorf("--block-discovery-strategy=%q: give %s or %s", c.Strategy, StrategyRecursive, StrategyConcurrent))
	}
	if c.ListInterval < model.Duration(time.Second) {
		err = errors.Join(err, fmt.Errorf("--block-list-interval=%s: give 1s or more", c.ListInterval))
	}
	if now := time.Now(); c.MinTime.Millis(now, minTime) > c.MaxTime.Millis(now, maxTime) {
		err = errors.Join(err, fmt.Errorf("--min-time=%s is after --max-time=%s", &c.MinTime, &c.MaxTime))
	}
	return err
}

// at returns what the config leaves out at the moment now.
func (c *FetcherConfig) at(now time.Time, rules []*relabel.Config) Selection {
	return Selection{
		MinTime:                  c.MinTime.Millis(now, minTime),
		MaxTime:                  c.MaxTime.Millis(now, maxTime),
		Selector:                 rules,
		IgnoreLabels:             c.IgnoreLabels,
		ConsistencyDelay:         time.Duration(c.ConsistencyDelay),
		IgnoreDeletionMarksDelay: time.Duration(c.IgnoreDeletionMarksDelay),
		IgnoreMarked:             !c.KeepMarked,
		Deduplicate:              !c.KeepDuplicates,
	}
}

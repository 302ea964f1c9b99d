package main

import (
	"errors"
	"flag"
	"time"

	"github.com/prometheus/common/model"
)

// allConfig is what only `firnline all` has.
type allConfig struct {
	DataDir    string
	SelfScrape model.Duration // 0: none

	localBucket bool // in DataDir, since none was given
}

// RegisterFlags implements configurer.
func (c *allConfig) RegisterFlags(fs *flag.FlagSet) {
	c.SelfScrape = model.Duration(15 * time.Second)
	fs.StringVar(&c.DataDir, "data-dir", "./data", "Local folder for everything: what was taken and is not shipped yet, what can be made again, and the bucket where no other is given. One process at a time can use it.")
	fs.Var(&c.SelfScrape, "self-scrape.interval", `Time between two writings of this process' own metrics into itself, as job="firnline". 0s: they are not written.`)
}

// Validate implements configurer.
func (c *allConfig) Validate() error {
	if c.DataDir == "" {
		return errors.New("--data-dir is empty: name a folder that can be written to")
	}
	return nil
}

const (
	// allLabel is the external label of what is pushed to `firnline all`. It is the same
	// after a restart, on another host too, and tells these blocks from those of
	// ingesters that are put beside it later.
	allLabel = `ingest="all"`
	// allReplicaLabel takes that label out of answers, so that series look as they
	// were pushed, and join what later ingesters take.
	allReplicaLabel = "ingest"
	// noGossip is the address on which nobody has to find us.
	noGossip = "127.0.0.1:0"
)

// flagDefaults are those that differ from the components'.
func flagDefaults() map[string]string {
	return map[string]string{
		"prometheus.url":    "",
		"sidecar.tsdb.path": "", "ingest.tsdb.path": "", "store.data-dir": "", "compact.data-dir": "",
		"ring.bind-address": noGossip,
		// Our own metrics go on while a sender was away: what it has kept must still be taken.
		"tsdb.out-of-order.time-window": "6h",
		"tsdb.max-exemplars":            "20000",
		"sync-block-duration":           "30s", // as with a manifest, which a new bucket has not at once
	}
}

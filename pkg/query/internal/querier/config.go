package querier

import (
	"errors"
	"flag"
	"fmt"

	"github.com/firnline/firnline/pkg/dedup"
)

// Config is how series are selected where a request does not say.
type Config struct {
	ConcurrentSelects int    // of one query
	DedupFunc         string // one of dedup's kinds
}

// RegisterFlags registers the flags and fills in their defaults.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	fs.IntVar(&c.ConcurrentSelects, "query.max-concurrent-select", 4, "Selectors of one query that are fetched at once; others wait for their turn.")
	fs.StringVar(&c.DedupFunc, "deduplication.func", string(dedup.Firnline), "How the replicas of HA pairs become one series: firnline (stays with a replica while it has samples and fills its gaps from the others), penalty (Thanos' default), or chain (every sample of every replica).")
}

// Validate returns every mistake at once.
func (c *Config) Validate() error {
	var errs []error
	if c.ConcurrentSelects < 1 {
		errs = append(errs, fmt.Errorf("--query.max-concurrent-select=%d: must be 1 or more", c.ConcurrentSelects))
	}
	if _, err := dedup.ParseKind(c.DedupFunc); err != nil {
		errs = append(errs, fmt.Errorf("--deduplication.func: %w", err))
	}
	return errors.Join(errs...)
}

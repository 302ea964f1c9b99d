package ha

import (
	"time"

	"github.com/firnline/firnline/pkg/tenant"
)

// Pair names senders that send the same, of which one is taken.
type Pair struct {
	Tenant  tenant.ID
	Cluster string
}

// Rules is what a tenant's limits say about pairs.
type Rules struct {
	Failover    time.Duration // how long the elected one is silent before another takes over
	Update      time.Duration // how often others are told that it is alive
	MaxClusters int           // of a tenant; 0: any number
}

// Verdict is what to do with what a sender of a pair sent.
type Verdict uint8

// Verdicts.
const (
	Elected Verdict = iota // take it
	Standby                // leave it out: the pair's other sender is taken
	TooMany                // refuse it: the tenant has too many pairs
)

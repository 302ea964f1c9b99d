package endpoint

import (
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/storeapi"
)

// Peer is an endpoint as fan-out sees it.
type Peer struct {
	Name  string        // its address
	Info  storeapi.Info // what it last told
	Known bool          // it has told; if not, it may hold anything
	Down  error         // why it can't be asked; nil: ask it

	// Services are how to ask it. Their errors and warnings name the endpoint.
	// Those that Info.Services has not may fail with ErrUnimplemented.
	Services storeapi.Services
}

// Status is an endpoint as /api/v1/stores shows it.
type Status struct {
	Name      string
	Component string    // "unknown" until the endpoint has told
	LastCheck time.Time // zero: none yet
	LastError string    // empty: well
	Strict    bool
	LabelSets []labels.Labels
	MinTime   int64 // ms
	MaxTime   int64 // ms
}

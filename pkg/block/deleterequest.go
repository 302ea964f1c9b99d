package block

import (
	"time"

	"github.com/oklog/ulid/v2"
)

// DeleteState is how far a delete request has come.
type DeleteState string

const (
	DeletePending   DeleteState = "pending"   // hidden from queries, still in blocks
	DeleteDone      DeleteState = "done"      // in no block of the bucket any more
	DeleteCancelled DeleteState = "cancelled" // shown again, as far as it wasn't removed
)

// DeleteRequest asks for samples to be removed from a bucket: those of the
// series that one of the selectors matches, with external labels, between
// MinTime and MaxTime. It is the object firnline/deletes/<ULID>.json.
//
// Of downsampled data each window goes that has a part in the interval.
type DeleteRequest struct {
	ID        ulid.ULID   `json:"id"`
	Version   int         `json:"version"`
	Selectors []string    `json:"selectors"` // PromQL vector selectors, such as {namespace="dev"}
	MinTime   int64       `json:"minTime"`   // ms, inclusive
	MaxTime   int64       `json:"maxTime"`   // ms, inclusive
	Created   time.Time   `json:"created"`   // by the bucket's clock
	By        string      `json:"by,omitempty"`
	Reason    string      `json:"reason,omitempty"`
	State     DeleteState `json:"state"`
	// Clean are blocks in the interval that were found to hold nothing of it.
	Clean    []ulid.ULID `json:"clean,omitempty"`
	Finished time.Time   `json:"finished"` // when State left pending; zero before
}

package block

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

const (
	deleteVersion  = 1
	deletesPrefix  = ownPrefix + "deletes/"
	deleteFileType = ".json"
)

// What a delete request may hold at most.
const (
	maxDeleteBytes    = 8 << 20 // nearly all of it the blocks found clean
	maxSelectors      = 100
	maxSelectorBytes  = 16 << 10
	maxReasonBytes    = 1 << 10
	maxRequesterBytes = 256
	maxCleanBlocks    = 200_000
)

// ErrInvalidDelete marks a delete request that asks for what can't be done; its
// text says what to write instead.
var ErrInvalidDelete = errors.New("invalid delete request")

// DeleteState is how far a delete request has come.
type DeleteState string

// The states. A request begins as pending and ends in one of the others.
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
	ID        ulid.ULID `json:"id"`
	Version   int       `json:"version"`
	Selectors []string  `json:"selectors"` // PromQL vector selectors, such as {namespace="dev"}
	// Everything allows selectors that nearly every series matches.
	Everything bool        `json:"everything,omitempty"`
	MinTime    int64       `json:"minTime"` // ms, inclusive
	MaxTime    int64       `json:"maxTime"` // ms, inclusive
	Created    time.Time   `json:"created"` // by the bucket's clock
	By         string      `json:"by,omitempty"`
	Reason     string      `json:"reason,omitempty"`
	State      DeleteState `json:"state"`
	// Clean are blocks in the interval that were found to hold nothing of it.
	Clean    []ulid.ULID `json:"clean,omitempty"`
	Finished time.Time   `json:"finished"` // when State left pending; zero before
}

// deleteName is the object of a request.
func deleteName(id ulid.ULID) string { return deletesPrefix + id.String() + deleteFileType }

// deleteID is the inverse of deleteName; false for objects that are no requests.
func deleteID(name string) (ulid.ULID, bool) {
	base, ok := strings.CutPrefix(name, deletesPrefix)
	if !ok {
		return ulid.ULID{}, false
	}
	base, ok = strings.CutSuffix(base, deleteFileType)
	if !ok || strings.HasSuffix(base, "/") {
		return ulid.ULID{}, false
	}
	return ParseID(base)
}

// parseDelete reads a request's object. The error wraps ErrCorrupt or ErrUnknownVersion.
func parseDelete(id ulid.ULID, data []byte) (*DeleteRequest, error) {
	var head struct {
		Version int `json:"version"`
	}
	r := &DeleteRequest{}
	err := json.Unmarshal(data, &head)
	if err == nil && head.Version != deleteVersion {
		return nil, fmt.Errorf("delete request %s: %w %d, this program reads %d; upgrade it", id, ErrUnknownVersion, head.Version, deleteVersion)
	}
	if err == nil {
		err = json.Unmarshal(data, r)
	}
	if err == nil && r.ID != id {
		err = fmt.Errorf("it is that of request %s", r.ID)
	}
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return nil, fmt.Errorf("delete request %s: object %s of %d bytes: %w: %w; write it anew or remove it", id, deleteName(id), len(data), ErrCorrupt, err)
	}
	return r, nil
}

// check tells what can't be right in a request, whoever wrote it.
func (r *DeleteRequest) check() error {
	_, err := r.Matchers()
	errs := []error{err}
	if r.MinTime > r.MaxTime {
		errs = append(errs, fmt.Errorf("it ends at %s, before it begins at %s", timeText(r.MaxTime), timeText(r.MinTime)))
	}
	switch r.State {
	case DeletePending, DeleteDone, DeleteCancelled:
	default:
		errs = append(errs, fmt.Errorf("state %q is unknown", r.State))
	}
	if len(r.Clean) > maxCleanBlocks {
		errs = append(errs, fmt.Errorf("%d clean blocks, %d are allowed", len(r.Clean), maxCleanBlocks))
	}
	for _, t := range []struct {
		name, text string
		limit      int
	}{{"reason", r.Reason, maxReasonBytes}, {"requester", r.By, maxRequesterBytes}} {
		if len(t.text) > t.limit || !utf8.ValidString(t.text) {
			errs = append(errs, fmt.Errorf("%s of %d bytes: want at most %d, in UTF-8", t.name, len(t.text), t.limit))
		}
	}
	return errors.Join(errs...)
}

// Check tells why a new request can't be taken: selectors that don't parse or
// match nearly everything, an interval upside down. The error wraps ErrInvalidDelete.
func (r *DeleteRequest) Check() error {
	fresh := *r
	fresh.State = DeletePending
	if err := fresh.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidDelete, err)
	}
	if r.Everything {
		return nil
	}
	sets, err := r.Matchers()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidDelete, err)
	}
	for i, ms := range sets {
		if !slices.ContainsFunc(ms, narrows) {
			return fmt.Errorf("%w: selector %s matches nearly every series; add a matcher that says which, or say that everything is meant", ErrInvalidDelete, r.Selectors[i])
		}
	}
	return nil
}

// narrows tells whether a matcher leaves out more than a few series: both those
// without the label and some of those with it.
func narrows(m *labels.Matcher) bool {
	if m.Matches("") {
		return false
	}
	for _, probe := range []string{"0", "a", "Z", "up", "node_cpu_seconds_total", "ü", "~"} {
		if !m.Matches(probe) {
			return true
		}
	}
	return false
}

// Matchers parses the selectors: a series is asked for when it matches all
// matchers of one of them.
func (r *DeleteRequest) Matchers() ([][]*labels.Matcher, error) {
	if len(r.Selectors) == 0 {
		return nil, errors.New("no selector")
	}
	if len(r.Selectors) > maxSelectors {
		return nil, fmt.Errorf("%d selectors, %d are allowed", len(r.Selectors), maxSelectors)
	}
	p := parser.NewParser(parser.Options{})
	sets := make([][]*labels.Matcher, len(r.Selectors))
	for i, s := range r.Selectors {
		if len(s) > maxSelectorBytes {
			return nil, fmt.Errorf("selector %d has %d bytes, %d are allowed", i+1, len(s), maxSelectorBytes)
		}
		ms, err := p.ParseMetricSelector(s)
		if err != nil {
			return nil, fmt.Errorf("selector %q: %w", s, err)
		}
		if len(ms) == 0 {
			return nil, fmt.Errorf("selector %q has no matcher", s)
		}
		sets[i] = ms
	}
	return sets, nil
}

// Overlaps tells whether the request concerns [mint, maxt], ms, both inclusive.
func (r *DeleteRequest) Overlaps(mint, maxt int64) bool {
	return r.MinTime <= maxt && mint <= r.MaxTime
}

// timeText writes ms for people.
func timeText(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.999Z07:00")
}

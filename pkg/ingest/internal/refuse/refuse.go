// Package refuse names why ingest does not take something: each reason once,
// with its status code, for answers, metrics and docs alike.
package refuse

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/firnline/firnline/pkg/tenant"
)

// Reason is why a request, a series or a sample is refused. Its text is the
// label value of metrics and the anchor in docs/ingest.md.
type Reason string

// What a sender did wrong: it must not send the same again (400, 413, 415).
const (
	BadRequest          Reason = "bad-request"            // malformed body; the whole request
	UnsupportedType     Reason = "unsupported-type"       // content type or encoding; 415
	RequestTooLarge     Reason = "request-too-large"      // 413
	BadTenant           Reason = "bad-tenant"             // ID that breaks the rules
	UnknownTenant       Reason = "unknown-tenant"         // only listed tenants are taken
	BadLabels           Reason = "bad-labels"             // duplicate, empty, invalid UTF-8, no metric name
	TooManyLabels       Reason = "too-many-labels"        // per series
	LabelNameTooLong    Reason = "label-name-too-long"    //
	LabelValueTooLong   Reason = "label-value-too-long"   //
	SampleTooOld        Reason = "sample-too-old"         // older than the out-of-order window
	SampleOutOfOrder    Reason = "sample-out-of-order"    // no out-of-order window
	SampleTooFarInTime  Reason = "sample-too-far-ahead"   // in the future
	SampleDuplicate     Reason = "sample-duplicate"       // same time, other value
	BadHistogram        Reason = "bad-histogram"          //
	BadExemplar         Reason = "bad-exemplar"           // counted, never a reason to refuse a request
	TooManyClusters     Reason = "too-many-clusters"      // pairs of senders of a tenant, of which one is taken
	TooManySeriesInside Reason = "too-many-series-inside" // series in one request; 413
)

// What may pass later (429 and 503).
const (
	RateLimited       Reason = "rate-limited"        // samples a second; 429
	SeriesLimit       Reason = "series-limit"        // active series of a tenant; 429
	MetricSeriesLimit Reason = "metric-series-limit" // active series of a metric; 429
	Overloaded        Reason = "overloaded"          // memory or CPU watermark, bytes or requests in flight; 503
	NotReady          Reason = "not-ready"           // starting, stopping, no ring; 503
	Unavailable       Reason = "unavailable"         // no quorum of owners, a full or failing disk; 503
)

// Status is the HTTP status of a request refused for this reason.
func (r Reason) Status() int {
	switch r {
	case UnsupportedType:
		return http.StatusUnsupportedMediaType
	case RequestTooLarge, TooManySeriesInside:
		return http.StatusRequestEntityTooLarge
	case RateLimited, SeriesLimit, MetricSeriesLimit:
		return http.StatusTooManyRequests
	case Overloaded, NotReady, Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

// Retry tells whether sending the same again can succeed.
func (r Reason) Retry() bool {
	return r.Status() == http.StatusTooManyRequests || r.Status() == http.StatusServiceUnavailable
}

// Error is one refusal.
type Error struct {
	Reason Reason
	Tenant tenant.ID
	// Detail says what was wrong, with the series or metric, the limit and its
	// name, and what to do: "series up{job=\"a\"} has 41 labels, limit 40 (max_labels of tenant a)".
	Detail string
}

// Errorf makes an Error.
func Errorf(r Reason, id tenant.ID, format string, args ...any) *Error {
	return &Error{Reason: r, Tenant: id, Detail: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string { return e.Detail + " [" + string(e.Reason) + "]" }

// ReasonOf is the reason in err's chain; Unavailable if there is none, so that
// what nobody foresaw is tried again rather than lost.
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return Unavailable
}

// Tally counts what was refused of one request, by reason, and keeps the
// first refusal of each reason as its example. The zero value is empty. It is used by one goroutine,
// and never copied but by Clone: two copies would count in the same memory.
type Tally struct {
	_      noCopy
	counts []count // few: a list beats a map
}

// noCopy lets go vet find copies of what has it.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// Clone returns a Tally of its own that has counted the same.
func (t *Tally) Clone() *Tally { return &Tally{counts: slices.Clone(t.counts)} }

type count struct {
	reason  Reason
	samples int
	example *Error
}

// Add counts samples refused. example is called only for the first of a reason.
func (t *Tally) Add(r Reason, samples int, example func() *Error) {
	for i := range t.counts {
		if t.counts[i].reason == r {
			t.counts[i].samples += samples
			return
		}
	}
	t.counts = append(t.counts, count{r, samples, example()})
}

// Each calls f for each reason.
func (t *Tally) Each(f func(r Reason, samples int, example *Error)) {
	for _, c := range t.counts {
		f(c.reason, c.samples, c.example)
	}
}

// Samples is the number of samples refused for all reasons.
func (t *Tally) Samples() int {
	n := 0
	for _, c := range t.counts {
		n += c.samples
	}
	return n
}

// Err is nil if nothing was refused. Else its reason is one that can be tried
// again, if there is any (RELIABILITY I6), 503 before 429; its text tells
// counts and an example of each reason.
func (t *Tally) Err() error {
	if len(t.counts) == 0 {
		return nil
	}
	worst := t.counts[0]
	var parts []string
	for _, c := range t.counts {
		if rank(c.reason) > rank(worst.reason) {
			worst = c
		}
		parts = append(parts, fmt.Sprintf("%d samples refused [%s], the first: %s", c.samples, c.reason, c.example.Detail))
	}
	return &Error{Reason: worst.reason, Tenant: worst.example.Tenant, Detail: strings.Join(parts, "; ")}
}

// rank orders reasons by what a sender should do about them.
func rank(r Reason) int {
	switch r.Status() {
	case http.StatusServiceUnavailable:
		return 2
	case http.StatusTooManyRequests:
		return 1
	}
	return 0
}

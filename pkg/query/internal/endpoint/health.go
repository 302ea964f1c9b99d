package endpoint

import (
	"time"

	"github.com/firnline/firnline/pkg/storeapi"
)

// health is what is known of an endpoint. It is a value: each check makes a new one.
type health struct {
	checked time.Time     // end of the last check; zero: none yet
	info    storeapi.Info // of the last check that succeeded
	known   bool          // there was one
	err     error         // of the last check
	since   time.Time     // beginning of the state that err tells of
}

// after returns the health after a check that ended now.
func (h health) after(now time.Time, info storeapi.Info, err error) health {
	if h.checked.IsZero() || (h.err == nil) != (err == nil) {
		h.since = now
	}
	h.checked, h.err = now, err
	if err == nil {
		h.info, h.known = info, true
	}
	return h
}

// stale tells whether an endpoint of a name that changes its addresses has been
// without an answer for so long that its address is likely no longer right.
func (h health) stale(t target, now time.Time, timeout time.Duration) bool {
	return t.dynamic() && !t.strict && h.err != nil && now.Sub(h.since) >= timeout
}

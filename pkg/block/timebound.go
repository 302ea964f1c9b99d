package block

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// TimeBound is a flag value: a point in time (RFC 3339) or a distance from now
// (-6w, 30d). Its zero value is unset.
type TimeBound struct {
	at     time.Time
	offset time.Duration
	set    bool
}

// Set reads a time or a duration with an optional sign.
func (b *TimeBound) Set(s string) error {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		*b = TimeBound{at: t, set: true}
		return nil
	}
	d, err := model.ParseDuration(strings.TrimLeft(s, "+-"))
	if err != nil {
		return fmt.Errorf("%q is neither a time such as 2026-01-31T00:00:00Z nor a duration such as -6w", s)
	}
	*b = TimeBound{offset: time.Duration(d), set: true}
	if strings.HasPrefix(s, "-") {
		b.offset = -b.offset
	}
	return nil
}

// String is what Set reads.
func (b *TimeBound) String() string {
	switch {
	case b == nil || !b.set:
		return ""
	case !b.at.IsZero():
		return b.at.Format(time.RFC3339)
	case b.offset < 0:
		return "-" + model.Duration(-b.offset).String()
	}
	return model.Duration(b.offset).String()
}

// Millis returns the bound in ms at the moment now, and unset where there is none.
func (b *TimeBound) Millis(now time.Time, unset int64) int64 {
	if !b.set {
		return unset
	}
	if !b.at.IsZero() {
		return b.at.UnixMilli()
	}
	return now.Add(b.offset).UnixMilli()
}

// The bounds that stand for none.
const (
	minTime = int64(math.MinInt64)
	maxTime = int64(math.MaxInt64)
)

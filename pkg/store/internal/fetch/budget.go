package fetch

import (
	"fmt"
	"sync/atomic"

	"github.com/firnline/firnline/pkg/storeapi"
)

// Budget is what one request, or all at the same time, may take of something.
// It is safe for concurrent use. A nil Budget has no limit.
type Budget struct {
	limit int64 // 0: none
	noun  string
	flag  string
	used  atomic.Int64
}

// NewBudget makes a Budget of limit, 0 being no limit. noun says what is counted
// and flag where an operator raises the limit; both go into the error.
func NewBudget(limit int64, noun, flag string) *Budget {
	return &Budget{limit: limit, noun: noun, flag: flag}
}

// Take counts n before they are fetched. What does not fit is ErrLimit and not counted.
func (b *Budget) Take(n int64) error {
	if b == nil {
		return nil
	}
	used := b.used.Add(n)
	if b.limit > 0 && used > b.limit {
		b.used.Add(-n)
		return fmt.Errorf("%w: at least %d %s are needed, --%s allows %d",
			storeapi.ErrLimit, used, b.noun, b.flag, b.limit)
	}
	return nil
}

// Give returns n that were taken and are no longer held.
func (b *Budget) Give(n int64) {
	if b != nil {
		b.used.Add(-n)
	}
}

// Used is the number taken so far.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	return b.used.Load()
}

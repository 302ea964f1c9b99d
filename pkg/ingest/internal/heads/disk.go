package heads

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"
)

// freeInterval is how long a look at the free space is good for. At a gigabyte
// a second half a gigabyte could be written meanwhile; that a write fails then
// is borne, too.
const freeInterval = 500 * time.Millisecond

// disk watches over the space that all tenants share, so that writes are
// refused before one fails half-way.
type disk struct {
	dir     string
	least   int64 // bytes that must be free
	free    func(dir string) (int64, error)
	now     func() time.Time
	log     *slog.Logger
	metrics *metrics

	mu struct {
		sync.Mutex
		until time.Time // err is good till then
		err   error     // what stands against writing
	}
}

// check tells why nothing can be written, or nil.
func (d *disk) check() error {
	now := d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Before(d.mu.until) {
		return d.mu.err
	}
	d.mu.until = now.Add(freeInterval)
	free, err := d.free(d.dir)
	if err != nil {
		return d.mu.err // can't be told: a full disk shows when a write fails
	}
	d.metrics.free.Set(float64(free))
	old := d.mu.err
	d.mu.err = nil
	if free < d.least {
		d.mu.err = fmt.Errorf("%w: %d bytes are free below %s, %d have to be (%s)", errDiskFull, free, d.dir, d.least, flagMinFree)
	}
	if (old == nil) != (d.mu.err == nil) {
		d.log.Warn("whether the disk has room for samples has changed", "free", free, "least", d.least, "err", d.mu.err)
	}
	return d.mu.err
}

// errDiskFull marks what ends by itself when there is space again.
var errDiskFull = errors.New("disk is full")

// isDiskFull tells an error for want of space, which passes, from others.
func isDiskFull(err error) bool {
	return errors.Is(err, errDiskFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

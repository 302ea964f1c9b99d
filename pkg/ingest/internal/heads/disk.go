package heads

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/prometheus/tsdb/fileutil"
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

// openingBytes is the space that reading a log may take: a TSDB writes the chunks
// anew that it had in memory. It ends the whole process if it can't.
const openingBytes = 64 << 20

// checkOpening tells why the TSDB in dir can't be opened for want of space, or
// nil. What has been freed counts at once.
func (d *disk) checkOpening(dir string) error {
	var need int64
	for _, log := range []string{walDir, wblDir} {
		n, err := fileutil.DirSize(filepath.Join(dir, log))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		need += n
	}
	need = min(need, openingBytes)
	free, err := d.free(d.dir)
	if err != nil || free >= need {
		return nil //nolint:nilerr // can't be told
	}
	return fmt.Errorf("%w: %d bytes are free below %s, reading the log may take %d", errDiskFull, free, d.dir, need)
}

// checkSnapshot tells why a snapshot of so many bytes can't be written, or nil.
func (d *disk) checkSnapshot(bytes int64) error {
	free, err := d.free(d.dir)
	if err != nil || free >= bytes+openingBytes {
		return nil //nolint:nilerr // can't be told
	}
	return fmt.Errorf("%d bytes are free below %s, a snapshot takes %d", free, d.dir, bytes)
}

// errDiskFull marks what ends by itself when there is space again.
var errDiskFull = errors.New("disk is full")

// isDiskFull tells an error for want of space, which passes, from others.
func isDiskFull(err error) bool {
	return errors.Is(err, errDiskFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

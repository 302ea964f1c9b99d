package heads

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/firnline/firnline/pkg/block"
)

// syncer makes the log of one TSDB durable, once for all writes that wait for
// it. A write that has been committed is in the newest segment or an earlier
// one; the TSDB syncs neither before it goes on to another one. So a sync takes every
// segment from the last one synced to the newest, through descriptors of our
// own, and the folder whenever a segment was added.
//
// A sync that has failed is not tried again: the kernel may have dropped the
// pages, and a second one that succeeds would prove nothing. All that wait get the
// error, and so does everyone later.
type syncer struct {
	logs     []*logSync // WAL, WBL
	interval time.Duration
	fault    func(step string) error
	metrics  *metrics
	wake     chan struct{}

	mu struct {
		sync.Mutex
		group *syncGroup // of those who wait; nil: nobody
		err   error      // of the sync that failed
	}
}

// syncGroup are the writes that wait for the same sync.
type syncGroup struct {
	done   chan struct{} // closed when err is set
	err    error
	writes int
}

// newSyncer makes a syncer for the TSDB in dir, which has just been opened. Its first sync takes all
// segments there are: what an earlier opening has written and not promised is in the head
// by now, and nothing is written when it is sent again.
func newSyncer(dir string, interval time.Duration, fault func(string) error, m *metrics) (*syncer, error) {
	s := &syncer{interval: interval, fault: fault, metrics: m, wake: make(chan struct{}, 1)}
	for _, name := range []string{walDir, wblDir} {
		l := &logSync{dir: filepath.Join(dir, name)}
		oldest, _, err := segmentsOf(l.dir)
		if err != nil {
			return nil, err
		}
		l.synced = max(oldest, 0)
		s.logs = append(s.logs, l)
	}
	return s, nil
}

// wait returns once everything committed before the call is durable.
func (s *syncer) wait(ctx context.Context) error {
	s.mu.Lock()
	if err := s.mu.err; err != nil {
		s.mu.Unlock()
		return err
	}
	g := s.mu.group
	if g == nil {
		g = &syncGroup{done: make(chan struct{})}
		s.mu.group = g
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	g.writes++
	s.mu.Unlock()
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the sync of the log: %w", context.Cause(ctx))
	}
}

// failed is the error that ended all syncing, or nil.
func (s *syncer) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.err
}

// run syncs until ctx is done, and then once more for those who wait.
func (s *syncer) run(ctx context.Context) {
	defer func() {
		s.once()
		for _, l := range s.logs {
			l.close()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		if s.interval > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(s.interval):
			}
		}
		s.once()
	}
}

// once syncs for those who wait now. Who comes during the sync is of the next group.
func (s *syncer) once() {
	s.mu.Lock()
	g, err := s.mu.group, s.mu.err
	s.mu.group = nil
	s.mu.Unlock()
	if g == nil {
		return
	}
	if err == nil {
		err = s.sync(g.writes)
	}
	if err != nil {
		s.mu.Lock()
		s.mu.err = err
		s.mu.Unlock()
	}
	g.err = err
	close(g.done)
}

func (s *syncer) sync(writes int) error {
	start := time.Now()
	for _, l := range s.logs {
		if err := l.sync(s.fault); err != nil {
			return err
		}
	}
	s.metrics.syncs.Inc()
	s.metrics.syncSeconds.Observe(time.Since(start).Seconds())
	s.metrics.syncWaiters.Observe(float64(writes))
	return nil
}

// logSync is one log: numbered segments in a folder, of which the newest is written to.
type logSync struct {
	dir    string
	synced int      // the first segment to sync
	open   *os.File // the segment synced last
	named  bool     // the folder was synced since synced became what it is
}

// sync makes all segments durable. A log without a folder has no segments.
func (l *logSync) sync(fault func(string) error) error {
	newest, err := l.newest()
	if err != nil || newest < 0 {
		return err
	}
	for i := l.synced; i <= newest; i++ {
		if err := l.segment(i, fault); err != nil {
			return err
		}
	}
	if l.named && l.synced == newest {
		return nil
	}
	if err := fault("sync/folder"); err != nil {
		return err
	}
	if err := block.SyncDir(l.dir); err != nil {
		return err
	}
	if err := block.SyncDir(filepath.Dir(l.dir)); err != nil {
		return err
	}
	l.synced, l.named = newest, true
	return nil
}

// newest is the number of the newest segment, -1 if there is none. It takes no descriptor while that is the
// one synced last, so that writes go on in a process that has none left.
func (l *logSync) newest() (int, error) {
	if !l.named {
		_, newest, err := segmentsOf(l.dir)
		return newest, err
	}
	// In this order: the next one may have been added and removed, but then this one was removed before it.
	next, err := there(l.path(l.synced + 1))
	if err != nil {
		return -1, err
	}
	last, err := there(l.path(l.synced))
	if err != nil {
		return -1, err
	}
	if next || !last {
		_, newest, err := segmentsOf(l.dir)
		return newest, err
	}
	return l.synced, nil
}

// there tells whether a file or folder is, without a descriptor.
func there(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("sync log: %w", err)
	}
	return true, nil
}

func (l *logSync) path(segment int) string { return filepath.Join(l.dir, fmt.Sprintf("%08d", segment)) }

// segment syncs segment i and keeps it open, as the next sync is likely of the same.
func (l *logSync) segment(i int, fault func(string) error) error {
	name := l.path(i)
	if l.open == nil || l.open.Name() != name {
		l.close()
		f, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			return nil // what mattered of it is in a checkpoint, which is synced
		}
		if err != nil {
			return fmt.Errorf("sync log: %w", err)
		}
		l.open = f
	}
	err := fault("sync/" + filepath.Base(l.dir))
	if err == nil {
		err = dataSync(l.open)
	}
	if err != nil {
		return fmt.Errorf("sync log segment %s: %w", name, err)
	}
	return nil
}

func (l *logSync) close() {
	if l.open != nil {
		l.open.Close()
		l.open = nil
	}
}

// segmentsOf are the lowest and highest number of a segment, -1 if there is none. A
// listing is made while segments are added and the oldest removed, so it may have gaps.
func segmentsOf(dir string) (oldest, newest int, err error) {
	if ok, err := there(dir); err != nil || !ok {
		return -1, -1, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return -1, -1, fmt.Errorf("sync log: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return -1, -1, fmt.Errorf("sync log: list %s: %w", dir, err)
	}
	oldest, newest = -1, -1
	for _, name := range names {
		i, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if oldest < 0 {
			oldest = i
		}
		oldest, newest = min(oldest, i), max(newest, i)
	}
	return oldest, newest, nil
}

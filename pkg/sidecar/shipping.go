package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block"
)

// shipping runs a shipper once the TSDB's folder is in order and Prometheus has
// told its external labels.
type shipping struct {
	shipper *block.Shipper
	known   <-chan struct{} // closed when the external labels are known
	dir     string
	log     *slog.Logger
	metrics *metrics
	retry   time.Duration

	mu struct {
		sync.Mutex
		err      error // what stands against the start
		prepared bool
	}
}

// prepare writes the state file. What it can't do it logs, once, and run tries again.
func (s *shipping) prepare() bool {
	err := checkFolder(s.dir)
	if err == nil {
		err = s.shipper.Prepare()
	}
	s.mu.Lock()
	old := s.mu.err
	s.mu.err, s.mu.prepared = err, err == nil
	s.mu.Unlock()
	if err == nil {
		s.metrics.shipping.Set(1)
		return true
	}
	s.metrics.shipping.Set(0)
	if old == nil || old.Error() != err.Error() {
		s.log.Error("blocks can't be shipped; live data is served", "err", err)
	}
	return false
}

// run ships until ctx is done. Labels that go missing later are the shipper's to wait for.
func (s *shipping) run(ctx context.Context) {
	for !s.ready() && !s.prepare() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.retry):
		}
	}
	select {
	case <-ctx.Done():
		return
	case <-s.known:
	}
	if err := s.shipper.Run(ctx); err != nil && ctx.Err() == nil {
		s.log.Error("shipping blocks has ended", "err", err)
	}
}

func (s *shipping) ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.prepared
}

// check tells why nothing is shipped.
func (s *shipping) check() error {
	s.mu.Lock()
	err := s.mu.err
	s.mu.Unlock()
	if err == nil {
		err = checkTSDB(s.dir)
	}
	if err == nil {
		err = s.shipper.Held()
	}
	return err
}

// checkFolder tells why nothing can be shipped from a folder at all. An empty
// one will do: Prometheus may start after the sidecar.
func checkFolder(dir string) error {
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("TSDB folder %s does not exist: --tsdb.path must be Prometheus' --storage.tsdb.path", dir)
	case err != nil:
		return fmt.Errorf("TSDB folder (--tsdb.path): %w", err)
	case !st.IsDir():
		return fmt.Errorf("TSDB folder %s is no folder: --tsdb.path must be Prometheus' --storage.tsdb.path", dir)
	}
	return nil
}

// checkTSDB tells why a folder is not (yet) one that Prometheus keeps its TSDB in.
func checkTSDB(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("TSDB folder (--tsdb.path): %w", err)
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err == nil || e.Name() == "wal" || e.Name() == "chunks_head" {
			return nil
		}
	}
	return fmt.Errorf("TSDB folder %s has neither blocks nor a WAL: --tsdb.path must be Prometheus' --storage.tsdb.path, and Prometheus must run", dir)
}

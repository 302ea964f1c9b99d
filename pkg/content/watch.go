package content

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Watched is a text of an operator's that may change while we run, and who uses it.
type Watched struct {
	Flag, Text, File string        // as for Of
	Interval         time.Duration // between looks at the file
	What             string        // for the log and the help of metrics: limits of tenants
	Metrics          string        // in names of metrics: firnline_<this>_config_last_reload_successful
	// Use puts the content in force, or returns why it can't be and changes
	// nothing. source is how to call it in errors. Calls come one after the other.
	Use func(content []byte, source string) error
}

// Watch keeps a Watched in force. The file is read at each interval: time and
// size do not tell all changes. What can't be used leaves what was before in force; it
// is logged once, and tried again, since its reason may lie elsewhere. So is a file
// that was emptied: a new version is about to be written.
type Watch struct {
	of      Watched
	log     *slog.Logger
	metrics watchMetrics

	mu struct {
		sync.Mutex
		used   bool
		hash   [sha256.Size]byte // of the content in force
		failed string            // error of the last reading, "" if there was none
	}
}

// NewWatch reads and uses the content for the first time; here a wrong one is an
// error. Call Run to follow changes.
func NewWatch(of Watched, log *slog.Logger, reg prometheus.Registerer) (*Watch, error) {
	w := &Watch{of: of, log: log, metrics: newWatchMetrics(of, reg)}
	if err := w.Reload(); err != nil {
		return nil, err
	}
	return w, nil
}

// Run follows the file until ctx is done.
func (w *Watch) Run(ctx context.Context) error {
	if w.of.File == "" {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(w.of.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			w.look()
		}
	}
}

// Reload reads the content now and returns what is wrong with it.
func (w *Watch) Reload() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.readLocked()
}

// look is Reload for nobody who could be told.
func (w *Watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.mu.failed
	if err := w.readLocked(); err != nil && err.Error() != before {
		w.log.Error("a changed file can't be used; what it said before stays in force", "config", w.of.What, "err", err)
	}
}

func (w *Watch) readLocked() (err error) {
	defer func() {
		w.mu.failed = ""
		if err != nil {
			w.mu.failed = err.Error()
		}
		w.metrics.read(err)
	}()
	text, source, err := Of(w.of.Flag, w.of.Text, w.of.File)
	if err != nil {
		return err
	}
	if w.mu.used && len(bytes.TrimSpace(text)) == 0 && w.of.File != "" { // half written, most likely
		return fmt.Errorf("%s: is empty", source)
	}
	hash := sha256.Sum256(text)
	if w.mu.used && hash == w.mu.hash {
		return nil
	}
	if err := w.of.Use(text, source); err != nil {
		return err
	}
	if w.mu.used {
		w.log.Info("a changed file is in force", "config", w.of.What, "file", w.of.File)
	}
	w.mu.used, w.mu.hash = true, hash
	w.metrics.hash.Set(float64(binary.BigEndian.Uint32(hash[:])))
	return nil
}

type watchMetrics struct{ good, since, hash prometheus.Gauge }

func newWatchMetrics(of Watched, reg prometheus.Registerer) watchMetrics {
	gauge := func(name, help string) prometheus.Gauge {
		return promauto.With(reg).NewGauge(prometheus.GaugeOpts{Name: "firnline_" + of.Metrics + "_config_" + name, Help: fmt.Sprintf(help, of.What)})
	}
	return watchMetrics{
		good:  gauge("last_reload_successful", "Whether the newest version of the %s is in force (1) or an older one (0)."),
		since: gauge("last_reload_success_timestamp_seconds", "When the %s were last read and found right."),
		hash:  gauge("hash", "Hash of the %s in force."),
	}
}

// read records the outcome of a reading.
func (m *watchMetrics) read(err error) {
	if err != nil {
		m.good.Set(0)
		return
	}
	m.good.Set(1)
	m.since.SetToCurrentTime()
}

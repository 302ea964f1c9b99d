package notes

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
)

// Log keeps exemplars and families on local disk until the block that they
// belong to is shipped. What was added is there after the process is killed; with
// power goes what the system had not written yet. It never fails to open for
// what is in its files: a bad record ends a file, and bad families are none.
type Log struct {
	dir     string
	cfg     Config
	metrics *Metrics

	mu struct {
		sync.Mutex
		segments []*segment       // oldest first; the last one is written to
		file     *os.File         // of the last one; nil: the next Add begins one
		families map[Family]int64 // when last mentioned, ms
		cut      int64            // up to here notes were cut, ms, exclusive
		latest   int64            // of all exemplars added, ms
		closed   bool
	}
}

const familiesFilename = "families"

var errClosed = errors.New("log of notes is closed")

// OpenLog opens the log in dir, which it makes. Families count as mentioned at now.
func OpenLog(dir string, cfg Config, metrics *Metrics, now time.Time) (*Log, error) {
	l := &Log{dir: dir, cfg: cfg, metrics: metrics}
	l.mu.families = map[Family]int64{}
	l.mu.latest, l.mu.cut = math.MinInt64, math.MinInt64
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open log of notes: %w", err)
	}
	var err error
	if l.mu.segments, err = openSegments(dir, metrics); err != nil {
		return nil, fmt.Errorf("open log of notes: %w", err)
	}
	for _, s := range l.mu.segments {
		l.mu.latest = max(l.mu.latest, s.maxt)
	}
	data, err := os.ReadFile(l.familiesFile())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open log of notes: %w", err)
	}
	if n, err := Decode(data); err == nil { // else it is as good as none: they are mentioned again
		for _, f := range n.Families {
			l.mu.families[f] = now.UnixMilli()
		}
	}
	return l, nil
}

func (l *Log) familiesFile() string { return filepath.Join(l.dir, familiesFilename) }

// Latest is the time of the newest exemplar, ms; ok is false where there is none.
func (l *Log) Latest() (ms int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.latest, l.mu.latest != math.MinInt64
}

// Mention adds families, or says that they are still in use. They are on disk
// when it returns.
func (l *Log) Mention(families []Family, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return errClosed
	}
	changed := false
	for _, f := range families {
		_, known := l.mu.families[f]
		if !known && (len(l.mu.families) >= l.cfg.MaxFamilies || len(f.Name)+len(f.Help)+len(f.Unit)+len(f.Type) > maxFamilyBytes) {
			l.metrics.dropped.WithLabelValues(droppedFamilies).Inc()
			continue
		}
		if !known {
			f = Family{Name: strings.Clone(f.Name), Type: strings.Clone(f.Type), Help: strings.Clone(f.Help), Unit: strings.Clone(f.Unit)}
			changed = true
		}
		l.mu.families[f] = now.UnixMilli()
	}
	if !changed {
		return nil
	}
	return l.saveFamilies()
}

// maxFamilyBytes bounds one family. An exposition's help has some hundred.
const maxFamilyBytes = 8 << 10

// saveFamilies writes them. Call it with the lock held.
func (l *Log) saveFamilies() error {
	n := &Note{}
	n.Families, _ = l.collectFamilies()
	data, err := n.Encode()
	if err == nil {
		err = block.WriteFile(l.familiesFile(), data)
	}
	if err != nil {
		l.metrics.failures.Inc()
		return fmt.Errorf("log of notes: keep families: %w", err)
	}
	return nil
}

// collectFamilies returns as many as a note has room for beside exemplars, in
// order, and how many it has not. Call it with the lock held.
func (l *Log) collectFamilies() (out []Family, left int) {
	for f := range l.mu.families {
		out = append(out, f)
	}
	slices.SortFunc(out, compareFamilies)
	size := 0
	for i, f := range out {
		if size += len(f.Name) + len(f.Type) + len(f.Help) + len(f.Unit) + maxFamilyOverhead; size > roomForFamilies {
			return out[:i], len(out) - i
		}
	}
	return out, 0
}

// A note has room for both kinds, each in its own half, less what encoding them takes.
const (
	maxFamilyOverhead = 4 * binary.MaxVarintLen32
	roomForFamilies   = maxContentBytes/2 - 1<<10
	roomForExemplars  = maxContentBytes/2 - 1<<10
)

// Add appends exemplars. The caller keeps the memory of list. What is too large
// to be kept is counted and left out.
func (l *Log) Add(list []Series) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return errClosed
	}
	var data []byte
	batch := bounds{mint: math.MaxInt64, maxt: math.MinInt64}
	for _, s := range list {
		var left int
		if data, left = appendRecord(data, s); left > 0 {
			l.metrics.dropped.WithLabelValues(droppedSize).Add(float64(left))
			continue
		}
		batch.add(s.Exemplars)
	}
	if batch.count == 0 {
		return nil
	}
	if err := l.write(data, batch); err != nil {
		l.metrics.failures.Inc()
		l.metrics.dropped.WithLabelValues(droppedWrite).Add(float64(batch.count))
		return fmt.Errorf("log of notes: %w", err)
	}
	l.mu.latest = max(l.mu.latest, batch.maxt)
	l.metrics.exemplars.Add(float64(batch.count))
	return nil
}

// write appends data to the newest file and makes room for it. Call it with the
// lock held.
func (l *Log) write(data []byte, batch bounds) error {
	if err := l.ready(); err != nil {
		return err
	}
	s := l.mu.segments[len(l.mu.segments)-1]
	if _, err := l.mu.file.WriteAt(data, s.size); err != nil {
		// What has got there would end the file for a reader, and the next write overwrites it.
		return errors.Join(err, l.mu.file.Truncate(s.size))
	}
	s.size += int64(len(data))
	s.bounds.merge(batch)
	return l.makeRoom()
}

// ready makes sure that there is a file to be written to. Call it with the lock held.
func (l *Log) ready() error {
	last := len(l.mu.segments) - 1
	if last >= 0 && l.mu.segments[last].size >= int64(l.cfg.DiskBytes)/segments && l.mu.file != nil {
		err := l.mu.file.Close()
		l.mu.file = nil
		if err != nil {
			return err
		}
	}
	if l.mu.file != nil {
		return nil
	}
	number := uint64(1)
	if last >= 0 {
		number = l.mu.segments[last].number + 1
	}
	s, f, err := createSegment(l.dir, number)
	if err != nil {
		return err
	}
	l.mu.segments, l.mu.file = append(l.mu.segments, s), f
	return nil
}

// segments is into how many files a full log is divided: so much of it goes at once.
const segments = 8

// makeRoom removes the oldest files while there is too much. Call it with the lock held.
func (l *Log) makeRoom() error {
	var total int64
	for _, s := range l.mu.segments {
		total += s.size
	}
	for total > int64(l.cfg.DiskBytes) && len(l.mu.segments) > 1 {
		oldest := l.mu.segments[0]
		if err := os.Remove(oldest.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if oldest.maxt >= l.mu.cut { // else they have been sent
			l.metrics.dropped.WithLabelValues(droppedDisk).Add(float64(oldest.count))
		}
		l.mu.segments, total = l.mu.segments[1:], total-oldest.size
	}
	return nil
}

// Cut returns the note on a block of [mint, maxt), ms: the exemplars of that time
// and all families. Nothing is removed: a block may be sent again. A file that
// can't be read is counted and passed by.
func (l *Log) Cut(mint, maxt int64) *Note {
	l.mu.Lock()
	n := &Note{MinTime: mint, MaxTime: maxt}
	var left int
	n.Families, left = l.collectFamilies()
	var reads []segment
	for _, s := range l.mu.segments {
		if s.mint < maxt && s.maxt >= mint {
			reads = append(reads, *s)
		}
	}
	l.mu.cut = max(l.mu.cut, maxt)
	l.mu.Unlock()

	l.metrics.dropped.WithLabelValues(droppedFamilies).Add(float64(left))
	room := roomForExemplars
	for _, s := range slices.Backward(reads) { // the newest first, if there is no room for all
		err := s.read(func(one Series) {
			one.Exemplars = within(one.Exemplars, mint, maxt)
			if len(one.Exemplars) == 0 {
				return
			}
			if room -= sizeOf(one); room < 0 {
				l.metrics.dropped.WithLabelValues(droppedSize).Add(float64(len(one.Exemplars)))
				return
			}
			n.Series = append(n.Series, one)
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) { // forgotten meanwhile
			l.metrics.failures.Inc()
		}
	}
	n.normalize()
	return n
}

// within returns the part of sorted exemplars in [mint, maxt).
func within(list []exemplar.Exemplar, mint, maxt int64) []exemplar.Exemplar {
	byTime := func(e exemplar.Exemplar, t int64) int { return cmp.Compare(e.Ts, t) }
	from, _ := slices.BinarySearchFunc(list, mint, byTime)
	to, _ := slices.BinarySearchFunc(list, maxt, byTime)
	return list[from:to]
}

// sizeOf is at least what a series takes in a note.
func sizeOf(s Series) int {
	size := sizeOfLabels(s.Labels) + binary.MaxVarintLen32
	for _, e := range s.Exemplars {
		size += sizeOfLabels(e.Labels) + binary.MaxVarintLen64 + 8
	}
	return size
}

func sizeOfLabels(lset labels.Labels) int {
	size := binary.MaxVarintLen32
	lset.Range(func(l labels.Label) { size += len(l.Name) + len(l.Value) + 2*binary.MaxVarintLen32 })
	return size
}

// Forget removes files whose exemplars are all older than Config.Keep, and
// families not mentioned for that long.
func (l *Log) Forget(now time.Time) error {
	before := now.Add(-time.Duration(l.cfg.Keep)).UnixMilli()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return errClosed
	}
	var errs []error
	for len(l.mu.segments) > 0 && l.mu.segments[0].maxt < before && (l.mu.file == nil || len(l.mu.segments) > 1) {
		if err := os.Remove(l.mu.segments[0].path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("log of notes: %w", err))
			break
		}
		l.mu.segments = l.mu.segments[1:]
	}
	known := len(l.mu.families)
	for f, seen := range l.mu.families {
		if seen < before {
			delete(l.mu.families, f)
		}
	}
	if len(l.mu.families) < known {
		errs = append(errs, l.saveFamilies())
	}
	return errors.Join(errs...)
}

// Close closes the file. Cut still works.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.closed = true
	if l.mu.file == nil {
		return nil
	}
	err := l.mu.file.Close()
	l.mu.file = nil
	if err != nil {
		return fmt.Errorf("close log of notes: %w", err)
	}
	return nil
}

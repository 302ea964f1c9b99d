package replay

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/util/compression"
)

// A log is read in batches of records, of which there are so many. They keep their order:
//
//	segmentReader ──┬─► scanner ──┬─► sequencer ──┬─► encoder
//	 files          ├─► scanner ──┘   series      └─► encoder
//	                └─────────────► (the order)       samples, a share of the series each
//
// Scanners decompress, and pick the samples that head chunk files don't have. A series is
// known to the encoders from when a sample of it reaches them.
//
// A sample that comes right before its series in the log, which the TSDB leaves out, may be taken.

// batch is a row of records on its way.
type batch struct {
	// By the reader.
	raw     []byte
	records []rawRecord
	done    int // number of a segment that ends with it; -1: none

	// By a scanner.
	scanned chan struct{} // has an element when it is
	err     error
	samples int        // that there are, those not picked with them
	picked  [][]sample // by share
	others  []other    // of picked
	rest    []byte     // records that are not samples
	ends    []int      // of these

	// By the sequencer.
	pages []*page
	users atomic.Int32 // encoders that are not done with it
}

// rawRecord is a record as it is in the file.
type rawRecord struct {
	end         int // in raw
	compression compression.Type
}

const (
	batchBytes  = 64 << 10 // compressed
	batchMemory = 4 << 20  // about, at most: samples take more than they do in the log, compressed
	mostSharing = 8
)

// pipeline is what the goroutines that read a log share.
type pipeline struct {
	*replaying
	shares   int           // a power of two
	free     chan *batch   // each batch has a place in each channel
	scan     chan *batch   // to the scanners
	order    chan *batch   // to the sequencer
	encode   []chan *batch // to the encoders
	encoders []encoder
	pending  sync.WaitGroup // of encoders, batches that they have

	stop chan struct{}
	once sync.Once
	err  error // once stopped
}

func newPipeline(p *replaying) *pipeline {
	l := &pipeline{replaying: p, shares: 1, stop: make(chan struct{})}
	for l.shares < min(runtime.GOMAXPROCS(0), mostSharing) {
		l.shares *= 2
	}
	n := 8 + 8*l.shares
	if p.cfg.Buffers > 0 {
		n = int(max(2+2*int64(l.shares), min(int64(n), p.cfg.Buffers/batchMemory)))
	}
	l.free, l.scan, l.order = make(chan *batch, n), make(chan *batch, n), make(chan *batch, n)
	for range n {
		l.free <- &batch{scanned: make(chan struct{}, 1), picked: make([][]sample, l.shares)}
	}
	for range l.shares {
		l.encode = append(l.encode, make(chan *batch, n))
		l.encoders = append(l.encoders, encoder{replaying: p})
	}
	return l
}

// shareOf says who encodes a series.
func (l *pipeline) shareOf(ref chunks.HeadSeriesRef) int {
	return int(ref) >> runBits & (l.shares - 1)
}

// fail stops all, with the first error.
func (l *pipeline) fail(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.stop)
	})
}

func (l *pipeline) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// readLog reads checkpoint and segments.
func (p *replaying) readLog(log writeAheadLog) error {
	l := newPipeline(p)
	var wg sync.WaitGroup
	wg.Go(func() { l.readFiles(log) })
	for range l.shares {
		wg.Go(l.scanAll)
	}
	for share := range l.shares {
		wg.Go(func() { l.encodeAll(share) })
	}
	l.sequence(log)
	wg.Wait()
	for i := range l.encoders {
		p.stats.Encoded += l.encoders[i].encoded
	}
	return l.err
}

// errStopped ends a reader whose records nobody wants any more.
var errStopped = errors.New("stopped")

func (l *pipeline) readFiles(log writeAheadLog) {
	defer close(l.order)
	defer close(l.scan)
	r := segmentReader{
		next: func() (*batch, error) {
			select {
			case b := <-l.free:
				b.raw, b.records, b.done = b.raw[:0], b.records[:0], -1
				return b, nil
			case <-l.stop:
				return nil, errStopped
			}
		},
		pass: func(b *batch) { l.scan <- b; l.order <- b },
	}
	if err := r.log(log); err != nil {
		l.fail(err)
	}
	l.stats.Bytes = r.read
}

func (l *pipeline) scanAll() {
	s := newScanner(l.replaying, l.shares)
	for b := range l.scan {
		if !l.stopped() {
			b.err = s.scan(b)
		}
		b.scanned <- struct{}{}
	}
}

func (l *pipeline) encodeAll(share int) {
	e := &l.encoders[share]
	for b := range l.encode[share] {
		if !l.stopped() {
			if err := e.batch(b, share); err != nil {
				l.fail(err)
			}
		}
		if b.users.Add(-1) == 0 {
			l.free <- b
		}
		l.pending.Done()
	}
	if !l.stopped() {
		e.drainAll(share, l.shares)
	}
}

// sequence takes batches in order.
func (l *pipeline) sequence(log writeAheadLog) {
	s := sequencer{pipeline: l, dec: record.NewDecoder(labels.NewSymbolTable(), slog.New(slog.DiscardHandler))}
	for b := range l.order {
		<-b.scanned
		if l.stopped() {
			continue
		}
		if err := errors.Join(b.err, l.takes(Memory{}), s.rest(b)); err != nil {
			l.fail(err)
			continue
		}
		l.stats.Samples += b.samples
		if b.done >= 0 && l.cfg.Progress != nil {
			l.cfg.Progress(log.segments[0], log.segments[len(log.segments)-1], b.done)
		}
		b.pages = l.series.pages
		b.users.Store(int32(l.shares))
		l.pending.Add(l.shares)
		for _, to := range l.encode {
			to <- b
		}
	}
	for _, to := range l.encode {
		close(to)
	}
}

// sequencer takes the records that are not samples.
type sequencer struct {
	*pipeline
	dec record.Decoder
}

func (s *sequencer) rest(b *batch) error {
	from := 0
	for _, end := range b.ends {
		if err := s.record(b.rest[from:end]); err != nil {
			return err
		}
		from = end
	}
	return nil
}

func (s *sequencer) record(rec []byte) error {
	switch s.dec.Type(rec) {
	case record.Series:
		return s.define(rec[1:])
	case record.Exemplars:
		return s.keepExemplars(rec)
	case record.Tombstones:
		return unsure("the log has tombstones")
	}
	// Metadata is not kept in the head, the time of the checkpoint is known, and what the TSDB does
	// not know it passes over, too.
	return nil
}

// errShort is a record that ends too early. Its checksum was right: whoever wrote it meant something else.
var errShort = unsure("a record of the log is malformed")

// define enters the series of a record without its first byte: references, and labels that
// are taken over as they are.
func (s *sequencer) define(b []byte) error {
	for len(b) > 0 {
		if len(b) < 9 {
			return errShort
		}
		ref := chunks.HeadSeriesRef(binary.BigEndian.Uint64(b))
		b = b[8:]
		size, err := labelBytes(b)
		if err != nil {
			return err
		}
		known, older := s.series.at(ref) != nil, len(s.series.aliases)
		if err := s.series.define(ref, b[:size], s.mint, s.settle); err != nil {
			return err
		}
		if !known && len(s.series.aliases) == older {
			if err := s.takes(memoryOf(b[:size])); err != nil {
				return err
			}
		}
		b = b[size:]
	}
	return nil
}

// settle waits until all samples of a series are encoded that came so far.
func (s *sequencer) settle(ref chunks.HeadSeriesRef) {
	s.pending.Wait()
	p := s.series.pages[ref>>pageBits]
	s.encoders[s.shareOf(ref)].drain(p, &p.waiting[ref%pageSize>>runBits])
}

// labelBytes is how many bytes a set of labels takes: their number, and two strings each.
func labelBytes(b []byte) (int, error) {
	n, at := binary.Uvarint(b)
	if at <= 0 || n > uint64(len(b)) {
		return 0, errShort
	}
	for range 2 * n {
		size, k := binary.Uvarint(b[at:])
		if k <= 0 || size > uint64(len(b)-at-k) {
			return 0, errShort
		}
		at += k + int(size)
	}
	return at, nil
}

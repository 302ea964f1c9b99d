package replay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// A log is read by two goroutines: one gets records out of the files, which is
// checksums and decompression, the other takes them apart.

// batch are records one after the other.
type batch struct {
	bytes []byte
	ends  []int // of records in bytes
	done  int   // number of a segment that ends with it; -1: none
}

const (
	batchBytes = 256 << 10
	batches    = 8 // that there are at once
)

// readLog reads checkpoint and segments in order.
func (p *replaying) readLog(l writeAheadLog) error {
	full, free := make(chan *batch, batches), make(chan *batch, batches)
	for range batches {
		free <- &batch{}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var readErr error
	wg.Go(func() {
		defer close(full)
		r := recordReader{full: full, free: free, stop: stop}
		readErr = r.log(l)
		p.stats.Bytes = r.read
	})
	d := newDecoder(p)
	var err error
	for b := range full {
		if err == nil {
			err = d.batch(b)
		}
		if err != nil && stop != nil {
			close(stop)
			stop = nil
		}
		if err == nil && b.done >= 0 && p.cfg.Progress != nil {
			p.cfg.Progress(l.segments[0], l.segments[len(l.segments)-1], b.done)
		}
		free <- b
	}
	wg.Wait()
	return errors.Join(err, readErr)
}

// recordReader gets records out of files.
type recordReader struct {
	full chan<- *batch
	free <-chan *batch
	stop <-chan struct{}
	now  *batch
	read int64
}

// errStopped ends a reader whose records nobody wants any more.
var errStopped = errors.New("stopped")

func (r *recordReader) log(l writeAheadLog) error {
	err := r.all(l)
	if errors.Is(err, errStopped) {
		return nil
	}
	return err
}

func (r *recordReader) all(l writeAheadLog) error {
	if l.checkpoint != "" {
		in, err := wlog.NewSegmentsReader(l.checkpoint)
		if err != nil {
			return fmt.Errorf("read the checkpoint: %w", err)
		}
		if err := r.records(in, -1); err != nil {
			return fmt.Errorf("read the checkpoint: %w", err)
		}
	}
	for _, n := range l.segments {
		s, err := wlog.OpenReadSegment(wlog.SegmentName(l.dir, n))
		if err != nil {
			return fmt.Errorf("read segment %d: %w", n, err)
		}
		if err := r.records(wlog.NewSegmentBufReader(s), n); err != nil {
			return fmt.Errorf("read segment %d: %w", n, err)
		}
	}
	return nil
}

// records passes on the records of in and closes it.
func (r *recordReader) records(in io.ReadCloser, segment int) error {
	defer in.Close()
	from := wlog.NewReader(in)
	for from.Next() {
		if err := r.record(from.Record()); err != nil {
			return err
		}
	}
	r.read += from.Offset()
	return errors.Join(from.Err(), r.pass(segment))
}

func (r *recordReader) record(rec []byte) error {
	if r.now == nil {
		select {
		case r.now = <-r.free:
		case <-r.stop:
			return errStopped
		}
		r.now.bytes, r.now.ends, r.now.done = r.now.bytes[:0], r.now.ends[:0], -1
	}
	r.now.bytes = append(r.now.bytes, rec...)
	r.now.ends = append(r.now.ends, len(r.now.bytes))
	if len(r.now.bytes) < batchBytes {
		return nil
	}
	return r.pass(-1)
}

// pass passes on what there is.
func (r *recordReader) pass(segment int) error {
	if r.now == nil {
		return nil
	}
	r.now.done = segment
	r.full <- r.now // there is a place for each
	r.now = nil
	return nil
}

// decoder takes records apart.
type decoder struct {
	*replaying
	dec     record.Decoder
	samples []record.RefSample
	ints    []record.RefHistogramSample
	floats  []record.RefFloatHistogramSample
}

func newDecoder(p *replaying) *decoder {
	return &decoder{replaying: p, dec: record.NewDecoder(labels.NewSymbolTable(), slog.New(slog.DiscardHandler))}
}

func (d *decoder) batch(b *batch) error {
	from := 0
	for _, end := range b.ends {
		if err := d.record(b.bytes[from:end]); err != nil {
			return err
		}
		from = end
	}
	return nil
}

func (d *decoder) record(rec []byte) error {
	switch d.dec.Type(rec) {
	case record.Series:
		return d.define(rec[1:])
	case record.Samples:
		return d.plainSamples(rec[1:])
	case record.SamplesV2:
		return d.samplesV2(rec)
	case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
		return d.intHistograms(rec)
	case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
		return d.floatHistograms(rec)
	case record.Exemplars:
		return d.keepExemplars(rec)
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
func (d *decoder) define(b []byte) error {
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
		if d.cfg.Memory != nil {
			if err := d.cfg.Memory(); err != nil {
				return err
			}
		}
		if err := d.series.define(ref, b[:size], d.mint); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
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

// plainSamples takes from a record those samples that head chunk files don't have. It is the
// inner loop of a replay, and of most samples it looks at nothing but their time.
//
// After the first byte there are reference and time of the first sample, and of each the
// differences to these, and its value.
func (d *decoder) plainSamples(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if len(b) < 16 {
		return errShort
	}
	ref0, t0 := int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))
	b = b[16:]
	wanted := d.samples[:0]
	for len(b) > 0 {
		var dref, dt int64
		var n, k int
		if len(b) >= 6+8 { // nearly all differences take no more than three bytes
			word := binary.LittleEndian.Uint64(b)
			dref, n = shortVarint(word)
			dt, k = shortVarint(word >> (8 * n))
		}
		if n == 0 || k == 0 {
			if dref, dt, n, k = longHead(b); k == 0 {
				return errShort
			}
		}
		n += k
		v := binary.BigEndian.Uint64(b[n:])
		b = b[n+8:]
		d.stats.Samples++
		ref, t := chunks.HeadSeriesRef(ref0+dref), t0+dt
		if s := d.series.at(ref); s == nil || t > s.last {
			wanted = append(wanted, record.RefSample{Ref: ref, T: t, V: math.Float64frombits(v)})
		}
	}
	d.samples = wanted
	return d.encode(wanted)
}

// longHead returns the two varints that a sample begins with, and their lengths, or 0 if these
// and a value are not there.
func longHead(b []byte) (ref, t int64, n, k int) {
	if ref, n = binary.Varint(b); n <= 0 {
		return 0, 0, 0, 0
	}
	if t, k = binary.Varint(b[n:]); k <= 0 || len(b) < n+k+8 {
		return 0, 0, 0, 0
	}
	return ref, t, n, k
}

// shortVarint returns a varint of up to three bytes, and how many, or 0 if it is longer.
func shortVarint(b uint64) (v int64, n int) {
	u := b & 0x7f
	switch {
	case b&0x80 == 0:
		n = 1
	case b&0x8000 == 0:
		u, n = u|b>>1&(0x7f<<7), 2
	case b&0x800000 == 0:
		u, n = u|b>>1&(0x7f<<7)|b>>2&(0x7f<<14), 3
	}
	return int64(u>>1) ^ -int64(u&1), n
}

func (d *decoder) samplesV2(rec []byte) error {
	var err error
	if d.samples, err = d.dec.Samples(rec, d.samples[:0]); err != nil {
		return err
	}
	d.stats.Samples += len(d.samples)
	return d.encode(d.samples)
}

// encode puts samples into chunks.
func (d *decoder) encode(list []record.RefSample) error {
	for i := range list {
		smp := &list[i]
		s := d.series.at(smp.Ref)
		ok, err := d.wanted(smp.Ref, s, smp.T)
		if err != nil {
			return err
		}
		if ok {
			d.float(smp.Ref, s, smp.ST, smp.T, smp.V)
		}
	}
	return nil
}

// wanted tells whether a sample is to be put into a chunk.
func (d *decoder) wanted(ref chunks.HeadSeriesRef, s *place, t int64) (bool, error) {
	if t < d.mint || s != nil && t <= s.last {
		return false, nil
	}
	if s == nil || s.series == nil {
		return false, unsure("a sample of series %d, which the log does not define, or under an older name", ref)
	}
	return true, nil
}

func (d *decoder) intHistograms(rec []byte) error {
	var err error
	if d.ints, err = d.dec.HistogramSamples(rec, d.ints[:0]); err != nil {
		return err
	}
	d.stats.Samples += len(d.ints)
	for _, smp := range d.ints {
		s := d.series.at(smp.Ref)
		ok, err := d.wanted(smp.Ref, s, smp.T)
		if err != nil {
			return err
		}
		if ok {
			d.histogram(smp.Ref, s, smp.ST, smp.T, smp.H, nil)
		}
	}
	clear(d.ints)
	return nil
}

func (d *decoder) floatHistograms(rec []byte) error {
	var err error
	if d.floats, err = d.dec.FloatHistogramSamples(rec, d.floats[:0]); err != nil {
		return err
	}
	d.stats.Samples += len(d.floats)
	for _, smp := range d.floats {
		s := d.series.at(smp.Ref)
		ok, err := d.wanted(smp.Ref, s, smp.T)
		if err != nil {
			return err
		}
		if ok {
			d.histogram(smp.Ref, s, smp.ST, smp.T, nil, smp.FH)
		}
	}
	clear(d.floats)
	return nil
}

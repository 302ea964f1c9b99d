package replay

import (
	"encoding/binary"
	"log/slog"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/util/compression"
)

// sample is one that head chunk files don't have.
type sample struct {
	ref   uint32 // all that the table takes fit in
	other uint32 // its number in the others of the batch, from 1 on; 0: there is no more to it than this
	t     int64  // ms
	v     float64
}

// other is what a sample has that is a histogram, one of the two, or has a start time.
type other struct {
	st int64 // ms
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

// runBits are those of references of which a run belongs to one share: series beside each
// other in memory.
const runBits = 6

// scanner takes records apart.
type scanner struct {
	mint    int64
	covered *covered
	mask    uint32 // of shares
	buf     compression.DecodeBuffer
	dec     record.Decoder
	floats  []record.RefSample
	ints    []record.RefHistogramSample
	dists   []record.RefFloatHistogramSample
	to      *batch
}

func newScanner(p *replaying, shares int) *scanner {
	return &scanner{
		mint: p.mint, covered: &p.series.covered, mask: uint32(shares - 1), buf: compression.NewSyncDecodeBuffer(),
		dec: record.NewDecoder(labels.NewSymbolTable(), slog.New(slog.DiscardHandler)),
	}
}

// scan decompresses records, and picks samples.
func (s *scanner) scan(b *batch) error {
	s.to = b
	clear(b.others) // histograms
	b.samples, b.others, b.rest, b.ends = 0, b.others[:0], b.rest[:0], b.ends[:0]
	for i := range b.picked {
		b.picked[i] = b.picked[i][:0]
	}
	from := 0
	for _, r := range b.records {
		rec, err := compression.Decode(r.compression, b.raw[from:r.end], s.buf)
		if err != nil {
			return unsure("decompress a record: %w", err)
		}
		if err := s.record(rec); err != nil {
			return err
		}
		from = r.end
	}
	return nil
}

func (s *scanner) record(rec []byte) error {
	switch s.dec.Type(rec) {
	case record.Samples:
		return s.plainSamples(rec[1:])
	case record.SamplesV2:
		return s.samplesV2(rec)
	case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
		return s.intHistograms(rec)
	case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
		return s.floatHistograms(rec)
	}
	s.to.rest = append(s.to.rest, rec...)
	s.to.ends = append(s.to.ends, len(s.to.rest))
	return nil
}

// plainSamples reads a record without its first byte: reference and time of the first sample, and of each the
// differences to these, and its value. It is the inner loop of a replay: of most
// samples it looks at nothing but their time.
func (s *scanner) plainSamples(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if len(b) < 16 {
		return errShort
	}
	ref0, t0 := int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))
	b = b[16:]
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
		s.to.samples++
		ref, t := chunks.HeadSeriesRef(ref0+dref), t0+dt
		if t < s.mint || t <= s.covered.until(ref) {
			continue
		}
		if err := s.pick(ref, sample{t: t, v: math.Float64frombits(v)}); err != nil {
			return err
		}
	}
	return nil
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

func (s *scanner) pick(ref chunks.HeadSeriesRef, smp sample) error {
	if uint64(ref) > math.MaxUint32 {
		return unsure("a sample of series %d", ref)
	}
	smp.ref = uint32(ref)
	share := &s.to.picked[smp.ref>>runBits&s.mask]
	*share = append(*share, smp)
	return nil
}

func (s *scanner) samplesV2(rec []byte) error {
	var err error
	if s.floats, err = s.dec.Samples(rec, s.floats[:0]); err != nil {
		return err
	}
	for _, smp := range s.floats {
		if err := s.other(smp.Ref, smp.T, smp.V, other{st: smp.ST}); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) intHistograms(rec []byte) error {
	var err error
	if s.ints, err = s.dec.HistogramSamples(rec, s.ints[:0]); err != nil {
		return err
	}
	for _, smp := range s.ints {
		if err := s.other(smp.Ref, smp.T, 0, other{st: smp.ST, h: smp.H}); err != nil {
			return err
		}
	}
	clear(s.ints)
	return nil
}

func (s *scanner) floatHistograms(rec []byte) error {
	var err error
	if s.dists, err = s.dec.FloatHistogramSamples(rec, s.dists[:0]); err != nil {
		return err
	}
	for _, smp := range s.dists {
		if err := s.other(smp.Ref, smp.T, 0, other{st: smp.ST, fh: smp.FH}); err != nil {
			return err
		}
	}
	clear(s.dists)
	return nil
}

// other picks a sample that has more to it.
func (s *scanner) other(ref chunks.HeadSeriesRef, t int64, v float64, more other) error {
	s.to.samples++
	if t < s.mint || t <= s.covered.until(ref) {
		return nil
	}
	s.to.others = append(s.to.others, more)
	return s.pick(ref, sample{other: uint32(len(s.to.others)), t: t, v: v})
}

package merge

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/downsample"
)

// owner is what is to be known of a source beside its bytes.
type owner struct {
	replica uint64
	meta    *block.Meta
}

// series merges one series after the other.
type series struct {
	cfg    Config
	owners []owner // by source
	src    *chunkSource
	sink   sink
	total  Counts

	// Of the current series.
	counts   Counts
	cuts     tombstones.Intervals
	replicas []*replica // with chunks
	spare    []*replica

	reader     reader
	dedup      deduplication
	aggregates aggregates
}

func newSeries(cfg Config, src *chunkSource, targets []*target) (*series, error) {
	s := &series{cfg: cfg, src: src}
	s.sink = sink{keepST: cfg.KeepStartTimestamps, counts: &s.counts}
	var coarser []int64
	for _, t := range targets {
		switch {
		case t.Resolution == cfg.Resolution && s.sink.direct == nil:
			s.sink.direct = t
		case t.Resolution > cfg.Resolution && !slices.Contains(coarser, t.Resolution):
			s.sink.tiers = append(s.sink.tiers, t)
			coarser = append(coarser, t.Resolution)
		default:
			return nil, fmt.Errorf("a block of resolution %d ms can't be made from blocks of %d ms", t.Resolution, cfg.Resolution)
		}
	}
	if len(coarser) > 0 {
		s.sink.down = downsample.NewDownsampler(coarser...)
	}
	s.dedup = deduplication{kind: cfg.Dedup, src: src, sink: &s.sink}
	s.reader = reader{src: src, counts: &s.counts}
	s.aggregates = aggregates{resolution: cfg.Resolution, src: src, sink: &s.sink, counts: &s.counts}
	return s, nil
}

// merge writes the series that the heads have.
func (s *series) merge(names names, group []*head) error {
	s.counts = Counts{Series: 1}
	s.cuts = nil
	if s.cfg.Cut != nil {
		drop, cuts := s.cfg.Cut(stringsOf(names, group[0].labels))
		if drop {
			s.total.add(&Counts{Series: 1, Dropped: 1})
			return nil
		}
		s.cuts = cuts
	}
	s.clip(group)
	s.collect(group)
	err := s.write(names, group)
	if errors.Is(err, errMend) {
		s.sink.reset()
		s.counts = Counts{Series: 1}
		s.collect(group)
		if err = s.inspect(); err == nil {
			err = s.write(names, group)
		}
	}
	if err != nil {
		return err
	}
	if s.counts.SamplesOut == 0 {
		s.counts.Dropped = 1
	}
	if err := s.sink.end(group[0].labels); err != nil {
		return err
	}
	s.total.add(&s.counts)
	return nil
}

// clip adds what lies outside the time range wanted to the cuts, where there is any.
func (s *series) clip(group []*head) {
	mint, maxt := s.cfg.MinTime, s.cfg.MaxTime-1
	if s.cfg.MinTime == 0 && s.cfg.MaxTime == 0 {
		return
	}
	for _, h := range group {
		for _, c := range h.chunks {
			if c.MinTime < mint || c.MaxTime > maxt {
				s.cuts = slices.Clone(s.cuts).
					Add(tombstones.Interval{Mint: math.MinInt64, Maxt: mint - 1}).
					Add(tombstones.Interval{Mint: maxt + 1, Maxt: math.MaxInt64})
				return
			}
		}
	}
}

// collect gathers the chunks of each replica, less those that are cut out whole.
func (s *series) collect(group []*head) {
	s.spare = append(s.spare, s.replicas...)
	s.replicas = s.replicas[:0]
	for _, h := range group {
		r := s.replicaOf(h.src)
		meta := s.owners[h.src].meta
		r.chunks = slices.Grow(r.chunks, len(h.chunks))
		for i, c := range h.chunks {
			in := chunk{mint: c.MinTime, maxt: c.MaxTime, ref: c.Ref, src: int32(h.src), seq: int32(i)}
			r.chunks = append(r.chunks, in)
			if c.MinTime < meta.MinTime || c.MaxTime >= meta.MaxTime {
				s.counts.Outside++
			}
		}
	}
	for _, r := range s.replicas {
		s.cutWhole(r)
		sortChunks(r.chunks)
	}
	s.replicas = slices.DeleteFunc(s.replicas, func(r *replica) bool { return len(r.chunks) == 0 })
}

func (s *series) replicaOf(src int) *replica {
	id := s.owners[src].replica
	for _, r := range s.replicas {
		if r.id == id {
			return r
		}
	}
	r := &replica{}
	if n := len(s.spare); n > 0 {
		r, s.spare = s.spare[n-1], s.spare[:n-1]
	}
	r.id, r.chunks = id, r.chunks[:0]
	s.replicas = append(s.replicas, r)
	return r
}

// cutWhole drops the chunks of which nothing is to stay, and notes of others
// that a part of them goes. The index may be wrong on chunks that are yet to be
// mended: see inspect.
func (s *series) cutWhole(r *replica) {
	if len(s.cuts) == 0 {
		return
	}
	kept := r.chunks[:0]
	for _, c := range r.chunks {
		span := tombstones.Interval{Mint: c.mint, Maxt: c.maxt}
		if span.IsSubrange(s.cuts) {
			s.counts.Cut++
			continue
		}
		// A window's samples may be earlier than what the index says of an aggregate chunk.
		c.partly = slices.ContainsFunc(s.cuts, func(cut tombstones.Interval) bool { return cut.Mint <= c.maxt && c.mint-s.cfg.Resolution <= cut.Maxt })
		kept = append(kept, c)
	}
	r.chunks = kept
}

// write gives the samples of the collected chunks to the sink.
func (s *series) write(names names, group []*head) error {
	if s.cfg.Resolution == 0 {
		s.join()
	}
	switch {
	case len(s.replicas) == 0:
		return nil
	case s.cfg.Resolution > 0:
		return s.aggregates.run(s.replicas, s.cuts)
	case len(s.replicas) == 1:
		if err := s.single(s.replicas[0]); err != nil {
			return err
		}
		return s.balance()
	}
	if err := sortReplicas(s.replicas, s.src); err != nil {
		return err
	}
	counter, err := s.counter(names, group)
	if err != nil {
		return err
	}
	return s.dedup.run(s, s.replicas, counter)
}

// join makes one replica of those that are never there at the same time, as
// dedup.Split does for readers: what was deduplicated before and the replicas that
// begin behind it. Taken for two, the first scrape of the one could be left out as
// another's view of the last scrape before.
func (s *series) join() {
	for i := 0; i < len(s.replicas); i++ {
		to := s.replicas[i]
		for j := i + 1; j < len(s.replicas); j++ {
			r := s.replicas[j]
			if !apart(to.chunks, r.chunks) {
				continue
			}
			to.chunks = append(to.chunks, r.chunks...)
			sortChunks(to.chunks)
			s.replicas = slices.Delete(s.replicas, j, j+1)
			s.spare = append(s.spare, r)
			j--
		}
	}
}

// apart tells whether no chunk of a overlaps one of b; both are sorted.
func apart(a, b []chunk) bool {
	endA, endB := int64(math.MinInt64), int64(math.MinInt64)
	for len(a) > 0 && len(b) > 0 {
		if b[0].mint < a[0].mint {
			a, b, endA, endB = b, a, endB, endA
		}
		if a[0].mint <= endB {
			return false
		}
		endA, a = max(endA, a[0].maxt), a[1:]
	}
	return (len(a) == 0 || a[0].mint > endB) && (len(b) == 0 || b[0].mint > endA)
}

// single copies what stands alone and encodes the rest.
func (s *series) single(r *replica) error {
	s.reader.reset(s.cuts, r.chunks)
	for {
		p, err := s.reader.next()
		if p == nil || err != nil {
			return err
		}
		if p.data == nil {
			err = s.sink.add(p.batch, 0, p.batch.len())
		} else {
			if s.sink.wantsSamples() {
				if err := s.reader.decode(p); err != nil {
					return err
				}
			}
			err = s.sink.copy(p)
		}
		if err != nil {
			return err
		}
	}
}

// balance checks that no sample was lost. A difference is a bug of ours; the job
// fails rather than have it written.
func (s *series) balance() error {
	c := &s.counts
	if c.SamplesIn != c.SamplesOut+c.SamplesEqual+c.SamplesCut {
		return fmt.Errorf("%d samples read, %d written, %d left out as known, %d cut out: the sum is wrong", c.SamplesIn, c.SamplesOut, c.SamplesEqual, c.SamplesCut)
	}
	return nil
}

// counter tells whether the series is a counter: by its name, or by its first
// chunk of histograms.
func (s *series) counter(names names, group []*head) (bool, error) {
	name, found := names.Find(model.MetricNameLabel)
	for _, l := range group[0].labels {
		if found && l.Name == name && isCounter(names.At(l.Value)) {
			return true, nil
		}
	}
	enc, data, err := s.src.load(s.replicas[0].chunks[0])
	if err != nil || valueType(enc) == chunkenc.ValFloat {
		return false, err
	}
	flags, ok := hintAt(enc, data)
	return ok && hint(data[flags]) != chunkenc.GaugeType, nil
}

// inspect reads all chunks of a series of which some are not what the index
// says, and notes their true times.
func (s *series) inspect() error {
	var b batch
	for _, r := range s.replicas {
		kept := r.chunks[:0]
		for _, c := range r.chunks {
			enc, data, err := s.src.load(c)
			if err != nil {
				return err
			}
			if err := s.src.decoder.decode(&b, enc, data); err != nil {
				return s.src.corrupt(c, err)
			}
			if b.len() == 0 {
				s.counts.Empty++
				continue
			}
			mint, maxt := slices.Min(b.ts), slices.Max(b.ts)
			if unsorted := !b.sorted(); unsorted || mint != c.mint || maxt != c.maxt {
				c.mint, c.maxt, c.unsorted = mint, maxt, unsorted
				s.counts.Mended++
			}
			kept = append(kept, c)
		}
		r.chunks = kept
		s.cutWhole(r)
		sortChunks(r.chunks)
	}
	s.replicas = slices.DeleteFunc(s.replicas, func(r *replica) bool { return len(r.chunks) == 0 })
	return nil
}

// byAge brings the sources into the order in which their samples count where
// two have one of the same time: the block that was made first has it, as in
// Prometheus' head a sample that is there isn't overwritten.
func byAge(sources []Source) []Source {
	sorted := slices.Clone(sources)
	slices.SortFunc(sorted, func(a, b Source) int {
		return cmp.Or(a.Block.Meta().ULID.Compare(b.Block.Meta().ULID), cmp.Compare(a.Replica, b.Replica))
	})
	return sorted
}

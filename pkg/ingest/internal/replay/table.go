package replay

import (
	"bytes"
	"hash/maphash"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// series is one of the log, with its open chunk: floats or other, or none if all
// samples are in head chunk files.
type series struct {
	floats xorChunk // while it has samples
	nextAt int64    // ms, from which on there is to be another chunk
	mint   int64    // ms, of the open chunk
	other  *otherChunk
	labels []byte // as the log encodes them
}

// otherChunk is an open chunk that package chunkenc writes: of histograms, or of floats with
// start times.
type otherChunk struct {
	chunkenc.Chunk
	app        chunkenc.Appender
	endGuessed bool // nextAt was set by how a chunk of histograms filled

	// The newest value.
	v  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

// open tells whether there is an open chunk.
func (s *series) open() bool { return s.floats.samples > 0 || s.other != nil }

// encoding is that of the open chunk.
func (s *series) encoding() chunkenc.Encoding {
	if s.other != nil {
		return s.other.Encoding()
	}
	return chunkenc.EncXOR
}

// samples are those in the open chunk.
func (s *series) samples() int {
	if s.other != nil {
		return s.other.NumSamples()
	}
	return int(s.floats.samples)
}

// size is that of the open chunk in bytes.
func (s *series) size() int {
	if s.other != nil {
		return len(s.other.Bytes())
	}
	return s.floats.size()
}

// bytes are those of the open chunk, until the next sample.
func (s *series) bytes() []byte {
	if s.other != nil {
		return s.other.Bytes()
	}
	return s.floats.bytes()
}

// place is what is known of a reference.
type place struct {
	// last is the time of the newest sample that needs no place in a chunk any more, ms:
	// those until then are passed over. It stands beside its neighbours', since samples come in
	// the order of references, and most of them touch nothing else.
	last int64
	*series
}

const (
	pageBits = 12
	pageSize = 1 << pageBits
	// mostPages bounds the table of a log with absurd references.
	mostPages = 1 << 18
)

// table finds series by reference. References are given in order from 1 on, so
// that pages fill up.
type table struct {
	pages  []*[pageSize]place
	byHash map[uint64]chunks.HeadSeriesRef
	seed   maphash.Seed
	slab   []series
	arena  []byte

	// aliases are references of series that have another, newer one: the series had
	// left the head and came back. Of theirs nothing may be needed any more.
	aliases map[chunks.HeadSeriesRef]struct{}
	// late are references with head chunks of out-of-order samples.
	late map[chunks.HeadSeriesRef]struct{}
	// histograms are references whose newest head chunk holds histograms.
	histograms map[chunks.HeadSeriesRef]chunkenc.Encoding
}

func newTable() *table {
	return &table{
		byHash: map[uint64]chunks.HeadSeriesRef{}, seed: maphash.MakeSeed(),
		aliases:    map[chunks.HeadSeriesRef]struct{}{},
		late:       map[chunks.HeadSeriesRef]struct{}{},
		histograms: map[chunks.HeadSeriesRef]chunkenc.Encoding{},
	}
}

// at returns the place of a reference, nil if there is none yet.
func (t *table) at(ref chunks.HeadSeriesRef) *place {
	if page := uint64(ref) >> pageBits; page < uint64(len(t.pages)) && t.pages[page] != nil {
		return &t.pages[page][uint64(ref)%pageSize]
	}
	return nil
}

// make returns the place of a reference, nil if it is absurd.
func (t *table) make(ref chunks.HeadSeriesRef) *place {
	n := uint64(ref) >> pageBits
	if n >= mostPages {
		return nil
	}
	for uint64(len(t.pages)) <= n {
		t.pages = append(t.pages, nil)
	}
	if t.pages[n] == nil {
		page := new([pageSize]place)
		for i := range page {
			page[i].last = math.MinInt64
		}
		t.pages[n] = page
	}
	return &t.pages[n][uint64(ref)%pageSize]
}

// define enters a series of the log. lset is copied.
func (t *table) define(ref chunks.HeadSeriesRef, lset []byte, mint int64) error {
	p := t.make(ref)
	if p == nil {
		return unsure("series reference %d", ref)
	}
	if _, gone := t.aliases[ref]; gone {
		return unsure("series %d is defined again after a newer one of the same labels", ref)
	}
	if p.series != nil {
		if !bytes.Equal(p.labels, lset) {
			return unsure("series reference %d is defined twice", ref)
		}
		return nil
	}
	hash := maphash.Bytes(t.seed, lset)
	if other, ok := t.byHash[hash]; ok {
		if err := t.alias(other, lset, mint); err != nil {
			return err
		}
	}
	t.byHash[hash] = ref
	p.series = t.newSeries(lset)
	p.last = max(p.last, mint-1)
	return nil
}

// named returns the newest reference of a series.
func (t *table) named(lset []byte) (chunks.HeadSeriesRef, bool) {
	ref, ok := t.byHash[maphash.Bytes(t.seed, lset)]
	return ref, ok
}

// alias puts a series of the same labels that came later in the place of ref.
func (t *table) alias(ref chunks.HeadSeriesRef, lset []byte, mint int64) error {
	p := t.at(ref)
	if !bytes.Equal(p.labels, lset) {
		return unsure("series %d has the hash of another", ref)
	}
	if _, late := t.late[ref]; late || p.last >= mint || p.open() {
		return unsure("series %d has another reference now, and samples that are in no block", ref)
	}
	t.aliases[ref] = struct{}{}
	p.series = nil
	return nil
}

func (t *table) newSeries(lset []byte) *series {
	if len(t.slab) == 0 {
		t.slab = make([]series, 256)
	}
	s := &t.slab[0]
	t.slab = t.slab[1:]
	if cap(t.arena)-len(t.arena) < len(lset) {
		t.arena = make([]byte, 0, max(1<<20, len(lset)))
	}
	from := len(t.arena)
	t.arena = append(t.arena, lset...)
	s.labels = t.arena[from:len(t.arena):len(t.arena)]
	return s
}

// all calls f for each series that has no newer reference.
func (t *table) all(f func(ref chunks.HeadSeriesRef, p *place) error) error {
	for n, page := range t.pages {
		if page == nil {
			continue
		}
		for i := range page {
			if page[i].series == nil {
				continue
			}
			if err := f(chunks.HeadSeriesRef(n<<pageBits+i), &page[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

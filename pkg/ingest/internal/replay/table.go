package replay

import (
	"bytes"
	"hash/maphash"
	"slices"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// series is one of the log, with its open chunk: floats or other, or none if all
// samples are in head chunk files.
type series struct {
	floats xorChunk // while it has samples
	last   int64    // ms, of the newest sample that needs no place in a chunk any more
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

// page are series by the lowest bits of their references, and their samples that wait to be
// encoded, by runs.
type page struct {
	series  [pageSize]atomic.Pointer[series] // encoders may ask for one that is being defined
	waiting [pageSize >> runBits][]sample
	defined [pageSize >> runBits]atomic.Int32 // series of each run
}

// table finds series by reference.
type table struct {
	covered covered
	pages   []*page
	used    density

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

// at returns the series of a reference, nil if there is none.
func (t *table) at(ref chunks.HeadSeriesRef) *series { return seriesAt(t.pages, ref) }

func seriesAt(pages []*page, ref chunks.HeadSeriesRef) *series {
	if n := uint64(ref) >> pageBits; n < uint64(len(pages)) && pages[n] != nil {
		return pages[n].series[uint64(ref)%pageSize].Load()
	}
	return nil
}

// set returns false if the reference is absurd, or references are too far apart.
func (t *table) set(ref chunks.HeadSeriesRef, s *series) bool {
	n := uint64(ref) >> pageBits
	if n >= mostPages {
		return false
	}
	shared := n < uint64(len(t.pages)) // with encoders, which know the pages that were there with a batch
	for uint64(len(t.pages)) <= n {
		t.pages = append(t.pages, nil)
	}
	if t.pages[n] == nil {
		if shared { // rare: references are given in order
			t.pages = slices.Clone(t.pages)
		}
		t.pages[n] = new(page)
		t.used.pages++
	}
	p, i := t.pages[n], uint64(ref)%pageSize
	if s != nil {
		t.used.references++
		p.defined[i>>runBits].Add(1)
	} else {
		p.defined[i>>runBits].Add(-1)
	}
	p.series[i].Store(s)
	return !t.used.thin()
}

// define enters a series of the log. lset is copied. It calls settle before it looks at
// the samples of another series, which may be on their way.
func (t *table) define(ref chunks.HeadSeriesRef, lset []byte, mint int64, settle func(ref chunks.HeadSeriesRef)) error {
	if _, gone := t.aliases[ref]; gone {
		return unsure("series %d is defined again after a newer one of the same labels", ref)
	}
	if s := t.at(ref); s != nil {
		if !bytes.Equal(s.labels, lset) {
			return unsure("series reference %d is defined twice", ref)
		}
		return nil
	}
	hash := maphash.Bytes(t.seed, lset)
	if other, ok := t.byHash[hash]; ok {
		settle(other)
		if err := t.alias(other, lset, mint); err != nil {
			return err
		}
	}
	t.byHash[hash] = ref
	s := t.newSeries(lset)
	s.last = max(t.covered.until(ref), mint-1)
	if !t.set(ref, s) {
		return unsure("series reference %d is far from others", ref)
	}
	return nil
}

// named returns the newest reference of a series.
func (t *table) named(lset []byte) (chunks.HeadSeriesRef, bool) {
	ref, ok := t.byHash[maphash.Bytes(t.seed, lset)]
	return ref, ok
}

// alias puts a series of the same labels that came later in the place of ref.
func (t *table) alias(ref chunks.HeadSeriesRef, lset []byte, mint int64) error {
	s := t.at(ref)
	if !bytes.Equal(s.labels, lset) {
		return unsure("series %d has the hash of another", ref)
	}
	if _, late := t.late[ref]; late || s.last >= mint || s.open() {
		return unsure("series %d has another reference now, and samples that are in no block", ref)
	}
	t.aliases[ref] = struct{}{}
	t.set(ref, nil)
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
func (t *table) all(f func(ref chunks.HeadSeriesRef, s *series) error) error {
	for n, page := range t.pages {
		if page == nil {
			continue
		}
		for i := range page.series {
			s := page.series[i].Load()
			if s == nil {
				continue
			}
			if err := f(chunks.HeadSeriesRef(n<<pageBits+i), s); err != nil {
				return err
			}
		}
	}
	return nil
}

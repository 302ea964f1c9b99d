package block

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
)

// dice make random manifests in which everything happens that a meta.json can say.
type dice struct{ *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 0))} }

func (d dice) one(in int) bool { return d.IntN(in) == 0 }

func (d dice) id() ulid.ULID {
	var id ulid.ULID
	// A few times and little entropy, so that some are mentioned twice.
	_ = id.SetTime(uint64(1_700_000_000_000 + d.IntN(20)*7_200_000))
	id[15] = byte(d.IntN(20))
	return id
}

func (d dice) text() string {
	return []string{"", "a", "cluster", "ü\x00\xff", "eu-1", "000001", "index"}[d.IntN(7)]
}

func (d dice) number() int64 {
	return []int64{0, 1, -1, math.MaxInt64, math.MinInt64, d.Int64(), 7_200_000}[d.IntN(7)]
}

func (d dice) size() int64 { return []int64{0, 1, math.MaxInt64, d.Int64()}[d.IntN(4)] }

// some makes a list: none, an empty one, or a few.
func some[T any](d dice, one func() T) []T {
	if d.one(3) {
		return nil
	}
	out := make([]T, d.IntN(4))
	for i := range out {
		out[i] = one()
	}
	return out
}

func (d dice) time() time.Time {
	switch d.IntN(4) {
	case 0:
		return time.Time{}
	case 1:
		return time.Unix(1_700_000_000+d.Int64N(1e9), 0).UTC()
	}
	return time.Unix(1_700_000_000+d.Int64N(1e6), d.Int64N(1e9)).UTC()
}

func (d dice) meta(id ulid.ULID) *Meta {
	m := &Meta{ULID: id, MinTime: d.number(), Version: d.IntN(3)}
	m.MaxTime = max(m.MinTime, d.number())
	m.Stats = Stats{uint64(d.number()), uint64(d.number()), uint64(d.number()), d.Uint64N(9), d.Uint64(), 0}
	m.Compaction = Compaction{
		Level: int(d.number()), Deletable: d.one(2), Failed: d.one(2),
		Sources: some(d, d.id), Hints: some(d, d.text),
		Parents: some(d, func() Desc { return Desc{d.id(), d.number(), d.number()} }),
	}
	if d.one(2) {
		m.Compaction.Sources = []ulid.ULID{id}
	}
	raw := func() json.RawMessage { return json.RawMessage(fmt.Sprintf(` {"a":%d} `, d.IntN(3))) }
	m.Thanos = Thanos{
		Version: d.IntN(2), Downsample: Downsample{d.number()}, Source: d.text(),
		SegmentFiles: some(d, func() string { return fmt.Sprintf("%06d", d.IntN(3)) }),
		Files: some(d, func() File {
			return File{RelPath: fmt.Sprintf("chunks/%06d", d.IntN(3)), SizeBytes: d.size(), Hash: d.hash()}
		}),
		Rewrites:   some(d, func() Rewrite { return Rewrite{some(d, d.id), some(d, raw), some(d, raw)} }),
		IndexStats: IndexStats{d.number(), d.number()},
		UploadTime: d.time(),
	}
	if d.one(2) {
		m.Thanos.Extensions = raw()
	}
	if !d.one(4) {
		m.Thanos.Labels = map[string]string{}
		for range d.IntN(3) {
			m.Thanos.Labels[d.text()] = d.text()
		}
	}
	return m
}

func (d dice) hash() *FileHash {
	switch d.IntN(4) {
	case 0:
		raw := binary.BigEndian.AppendUint64(make([]byte, 24), d.Uint64())
		return &FileHash{Func: HashSHA256, Value: hex.EncodeToString(raw)}
	case 1:
		return &FileHash{Func: d.text(), Value: d.text()}
	}
	return nil
}

func (d dice) marks(id ulid.ULID) Marks {
	var m Marks
	if d.one(2) {
		m.Deletion = &DeletionMark{ID: id, Version: markVersion, Details: d.text(), DeletionTime: d.number()}
	}
	if d.one(2) {
		m.NoCompact = &NoCompactMark{ID: id, Version: markVersion, Details: d.text(), NoCompactTime: d.number(), Reason: d.text()}
	}
	if d.one(2) {
		m.NoDownsample = &NoDownsampleMark{ID: id, Version: markVersion, Details: d.text(), NoDownsampleTime: d.number(), Reason: d.text()}
	}
	return m
}

func (d dice) version() version {
	if d.one(2) {
		return version{}
	}
	return version{d.size(), 1 + d.Int64N(1e12)}
}

func (d dice) manifest() *Manifest {
	m := newManifest()
	m.Generation = d.Int64()
	m.ListedAt = d.time()
	m.Folded = append([]ulid.ULID{}, some(d, d.id)...)
	slices.SortFunc(m.Folded, ulid.ULID.Compare)
	for range d.IntN(10) {
		id := d.id()
		m.Metas[id] = d.meta(id)
		v := versions{meta: d.version()}
		put(m.versions, id, v, v != versions{})
	}
	for range d.IntN(5) {
		id := d.id()
		m.Marks[id] = d.marks(id)
		v := versions{m.versions[id].meta, d.version(), d.version(), d.version()}
		put(m.versions, id, v, v != versions{})
	}
	for range d.IntN(3) {
		m.Problems[d.id()] = toldProblem{d.text(), []error{nil, ErrCorrupt, ErrUnknownVersion}[d.IntN(3)]}
		m.Partial[d.id()] = d.time()
	}
	return m
}

func TestManifestRoundTrip(t *testing.T) {
	for seed := range uint64(300) {
		d := newDice(seed)
		want := d.manifest()
		data, err := encodeManifest(want)
		require.NoError(t, err, "seed %d", seed)
		got, err := decodeManifest(data)
		require.NoError(t, err, "seed %d", seed)
		require.Equal(t, want, got, "seed %d", seed)
		again, err := encodeManifest(got)
		require.NoError(t, err)
		require.Equal(t, data, again, "seed %d: equal manifests, equal bytes", seed)

		var changes []Change
		for range d.IntN(5) {
			c := Change{Block: d.id()}
			switch d.IntN(3) {
			case 0:
				c.Meta = d.meta(c.Block)
			case 1:
				marks := d.marks(c.Block)
				c.Marks = &marks
			case 2:
				c.Removed = true
			}
			changes = append(changes, c)
		}
		data, err = encodeChanges(changes)
		require.NoError(t, err, "seed %d", seed)
		gotChanges, err := decodeChanges(data)
		require.NoError(t, err, "seed %d", seed)
		require.Equal(t, append([]Change{}, changes...), gotChanges, "seed %d", seed)
	}
}

// TestManifestKeepsMeta: what stands in a meta.json comes back byte for byte.
func TestManifestKeepsMeta(t *testing.T) {
	for _, name := range []string{"testdata/meta_thanos.json", "testdata/meta_uploaded.json"} {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		var head struct{ ULID ulid.ULID }
		require.NoError(t, json.Unmarshal(data, &head))
		data = bytes.ReplaceAll(data, []byte(`"0001-01-01T00:00:00Z"`), []byte(`"2026-03-01T10:00:00.5+02:30"`))
		want, err := ParseMeta(head.ULID, data)
		require.NoError(t, err)
		m := newManifest()
		m.Metas[want.ULID] = want
		sealed, err := encodeManifest(m)
		require.NoError(t, err)
		m, err = decodeManifest(sealed)
		require.NoError(t, err)
		got, err := m.Metas[want.ULID].Encode()
		require.NoError(t, err)
		old, err := want.Encode()
		require.NoError(t, err)
		require.Equal(t, string(old), string(got))
	}
}

// TestManifestBadBytes: each byte changed and each length cut is noticed.
//
// RELIABILITY B1
func TestManifestBadBytes(t *testing.T) {
	data, err := encodeManifest(newDice(5).manifest())
	require.NoError(t, err)
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 0x40
		_, err := decodeManifest(bad)
		require.True(t, errors.Is(err, ErrCorrupt) || i == 4 && errors.Is(err, ErrUnknownVersion), "byte %d: %v", i, err)
		_, err = decodeManifest(data[:i])
		require.ErrorIs(t, err, ErrCorrupt)
	}
	_, err = decodeChanges(data)
	require.ErrorIs(t, err, ErrCorrupt, "a manifest is no announcement")
	newer := bytes.Clone(data)
	newer[4]++
	_, err = decodeManifest(newer)
	require.ErrorIs(t, err, ErrUnknownVersion)
}

// FuzzManifest: whatever is taken is written and read again as it was, and
// whatever isn't is refused as corrupt, in memory that the input bounds.
func FuzzManifest(f *testing.F) {
	for seed := range uint64(20) {
		d := newDice(seed)
		for _, data := range [][]byte{must(encodeManifest(d.manifest())), must(encodeChanges([]Change{{Block: d.id(), Removed: true}, {Block: d.id(), Marks: &Marks{}}}))} {
			f.Add(data)
			frame := Frame{Magic: binary.BigEndian.Uint32(data), MaxContentBytes: maxContentBytes}
			f.Add(must(frame.Unseal(data)))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := decodeManifest(data); err != nil {
			require.True(t, errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnknownVersion), err)
		}
		// The content by itself, which no checksum protects.
		if m, err := readContent(data, (*manifestReader).manifest); err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
		} else {
			sealed, err := encodeManifest(m)
			require.NoError(t, err)
			again, err := decodeManifest(sealed)
			require.NoError(t, err)
			require.Equal(t, m, again)
		}
		if c, err := readContent(data, (*manifestReader).changes); err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
		} else {
			sealed, err := encodeChanges(c)
			require.NoError(t, err)
			again, err := decodeChanges(sealed)
			require.NoError(t, err)
			require.Equal(t, c, again)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// typicalManifest is a bucket of some hundred Prometheus servers: two thirds are
// blocks of two hours, the others are compacted, at three resolutions, with the
// sources of a day or two.
func typicalManifest(blocks int) *Manifest {
	d := newDice(1)
	m := newManifest()
	m.ListedAt = time.Unix(1_800_000_000, 0).UTC()
	at := uint64(1_700_000_000_000)
	for len(m.Metas) < blocks {
		at += 60_000
		for i := range 3 {
			id := ulid.MustNew(at+d.Uint64N(1000), d)
			meta := typicalMeta(d, id)
			if i == 2 {
				compacted(d, m, meta)
			}
			m.Metas[id] = meta
			m.versions[id] = versions{meta: version{int64(1100 + d.IntN(90)), meta.Thanos.UploadTime.Unix()}}
		}
	}
	return m
}

func (d dice) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(d.Uint32())
	}
	return len(p), nil
}

func typicalMeta(d dice, id ulid.ULID) *Meta {
	from := int64(id.Time()) / 7_200_000 * 7_200_000
	m := &Meta{ULID: id, Version: 1, MinTime: from + d.Int64N(60_000), MaxTime: from + 7_200_000}
	series := 100_000 + d.Uint64N(200_000)
	m.Stats = Stats{NumSamples: series * 480, NumFloatSamples: series * 480, NumSeries: series, NumChunks: series*4 + d.Uint64N(series)}
	m.Compaction = Compaction{Level: 1, Sources: []ulid.ULID{id}}
	m.Thanos = Thanos{
		Version: 1, Source: SourceSidecar,
		Labels:       map[string]string{"cluster": fmt.Sprintf("eu-west-%d", d.IntN(100)), "replica": fmt.Sprintf("prometheus-%d", d.IntN(2))},
		SegmentFiles: []string{"000001"},
		Files: []File{
			{RelPath: "chunks/000001", SizeBytes: 50_000_000 + d.Int64N(100_000_000)},
			{RelPath: "index", SizeBytes: 10_000_000 + d.Int64N(50_000_000)}, {RelPath: "meta.json"},
		},
		IndexStats: IndexStats{SeriesMaxSize: 500 + d.Int64N(200), ChunkMaxSize: 1000 + d.Int64N(500)},
		UploadTime: idTime(id).Add(time.Duration(d.Int64N(60e9))).UTC(),
	}
	return m
}

// compacted makes meta one that was compacted from twelve blocks, every third
// time with the sources of an earlier one, as a coarser tier has.
func compacted(d dice, m *Manifest, meta *Meta) {
	meta.Compaction.Level = 3
	meta.Thanos.Source = SourceCompactor
	meta.Compaction.Sources = nil
	for i := range 12 {
		at := meta.ULID.Time() - uint64(i)*7_200_000
		if meta.ULID[15]%3 != 0 {
			at = at / 86_400_000 * 86_400_000
			r := newDice(at)
			meta.Compaction.Sources = append(meta.Compaction.Sources, ulid.MustNew(at, r))
			continue
		}
		meta.Compaction.Sources = append(meta.Compaction.Sources, ulid.MustNew(at, d))
	}
	slices.SortFunc(meta.Compaction.Sources, ulid.ULID.Compare)
	for _, s := range meta.Compaction.Sources[:4] {
		meta.Compaction.Parents = append(meta.Compaction.Parents, Desc{s, meta.MinTime, meta.MaxTime})
	}
	meta.MaxTime += 12 * 7_200_000
}

// TestManifestSize: 100,000 blocks take little memory and little of the network.
func TestManifestSize(t *testing.T) {
	const blocks = 100_000
	data, err := encodeManifest(typicalManifest(blocks))
	require.NoError(t, err)
	bkt := oneObject{data: data}
	before := heap()
	f, err := NewFetcher(FetcherConfig{ListInterval: model.Duration(1 << 60), Concurrency: 1}, bkt, "", slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	began := time.Now()
	v, err := f.FetchAll(t.Context())
	require.NoError(t, err)
	took := time.Since(began)
	grown := heap() - before + uint64(len(data))
	n := len(v.Metas)
	t.Logf("%d blocks: %d bytes each in the bucket, %d in memory with a view, read in %s", n, len(data)/n, grown/uint64(n), took)
	require.GreaterOrEqual(t, n, blocks)
	require.Less(t, grown, uint64(250<<20))
	require.Less(t, len(data)/n, 100)
	runtime.KeepAlive(v)
	runtime.KeepAlive(f)
}

// oneObject is a bucket that has nothing but a manifest.
type oneObject struct {
	Bucket
	data []byte
}

func (o oneObject) GetIf(context.Context, string, string) ([]byte, string, error) {
	return o.data, "1", nil
}
func (o oneObject) ListSizes(context.Context, string, func(Object) error) error { return nil }

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// BenchmarkManifest is what a write and a reading of a large manifest cost.
func BenchmarkManifest(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		m := typicalManifest(n)
		data, err := encodeManifest(m)
		require.NoError(b, err)
		b.Run(fmt.Sprintf("blocks=%d/encode", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = encodeManifest(m)
			}
		})
		b.Run(fmt.Sprintf("blocks=%d/decode", n), func(b *testing.B) {
			b.ReportAllocs()
			b.ReportMetric(float64(len(data))/float64(len(m.Metas)), "B/block")
			for b.Loop() {
				_, _ = decodeManifest(data)
			}
		})
	}
}

// TestCurrent: of what another process knows, all is read again that it could not
// use: by a manifest from before marks of unknown versions counted, too.
//
// RELIABILITY P15
func TestCurrent(t *testing.T) {
	v := version{sizeBytes: 1, seconds: 2}
	known := record{versions: versions{v, v, v, v}}
	for _, name := range []string{DeletionMarkFilename, NoCompactMarkFilename, NoDownsampleMarkFilename} {
		require.False(t, known.current(name, v), name)
	}
	require.True(t, known.current(MetaFilename, v))
	known.problem = toldProblem{"unknown version 2", ErrUnknownVersion}
	require.False(t, known.current(MetaFilename, v))
	known.problem = ErrUnknownVersion
	require.True(t, known.current(MetaFilename, v))
	known.marks = Marks{&DeletionMark{}, &NoCompactMark{}, &NoDownsampleMark{}}
	for _, name := range []string{MetaFilename, DeletionMarkFilename, NoCompactMarkFilename, NoDownsampleMarkFilename} {
		require.True(t, known.current(name, v), name)
		require.False(t, known.current(name, version{sizeBytes: 1, seconds: 3}), name)
	}
}

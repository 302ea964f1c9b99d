package block_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
)

const (
	manifestName = "firnline/manifest"
	announceDir  = "firnline/manifest.d/"
)

// fleet are processes that share a bucket: Fetchers that publish, and others
// that only read. What the bucket should hold is kept beside.
type fleet struct {
	t     testing.TB
	mem   *faulty
	bkt   block.Bucket
	clock *clock
	want  map[ulid.ULID]bool // blocks that are there; true: marked for deletion

	mu    sync.Mutex
	asked []string // requests since the last count, as "op name"
	fail  func(point, object string) error
}

// member is one of them.
type member struct {
	*block.Fetcher
	fleet *fleet
	reg   *prometheus.Registry
	logs  *bytes.Buffer
}

func newFleet(t testing.TB) *fleet {
	f := &fleet{t: t, mem: newFaulty(), clock: newClock(), want: map[ulid.ULID]bool{}}
	f.mem.SetClock(f.clock.now)
	f.bkt = bucket.WithFaults(f.mem, func(_ context.Context, point, object string) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if op, before := strings.CutSuffix(point, "/before"); before {
			f.asked = append(f.asked, strings.TrimPrefix(op, "bucket/")+" "+object)
		}
		if f.fail != nil {
			return f.fail(point, object)
		}
		return nil
	})
	return f
}

// newReadFleet is a fleet of so many blocks that one member keeps the manifest of and another has read.
func newReadFleet(t testing.TB, blocks int) (f *fleet, keeper, reader *member) {
	f = newFleet(t)
	for _, id := range f.ids(blocks) {
		f.put(id)
	}
	keeper, reader = f.member("c"), f.member("")
	keeper.begin()
	f.check(reader.look())
	return f, keeper, reader
}

// member starts a process; with a name it publishes.
func (f *fleet) member(name string) *member {
	f.t.Helper()
	var cfg block.FetcherConfig
	cfg.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	cfg.Owner = name
	cfg.KeepMarked = true
	require.NoError(f.t, cfg.Validate())
	m := &member{fleet: f, reg: prometheus.NewRegistry(), logs: &bytes.Buffer{}}
	var err error
	m.Fetcher, err = block.NewFetcher(cfg, f.bkt, "", slog.New(slog.NewTextHandler(m.logs, nil)), m.reg)
	require.NoError(f.t, err)
	m.SetClock(f.clock.now)
	return m
}

// requests returns what was asked of the bucket since the last call.
func (f *fleet) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.asked
	f.asked = nil
	return out
}

func (f *fleet) setFail(fail func(point, object string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

func (f *fleet) meta(id ulid.ULID) *block.Meta {
	m := &block.Meta{ULID: id, Version: 1, MinTime: int64(id.Time()), MaxTime: int64(id.Time()) + 1}
	m.Compaction.Sources = []ulid.ULID{id}
	m.Thanos.Version = 1
	m.Thanos.Labels = map[string]string{"cluster": "a"}
	m.Thanos.Source = block.SourceTest
	return m
}

// put makes a block without a word, as a foreign program does.
func (f *fleet) put(id ulid.ULID) ulid.ULID {
	data, err := f.meta(id).Encode()
	require.NoError(f.t, err)
	f.object(block.Name(id, block.IndexFilename), "x")
	f.object(block.Name(id, block.MetaFilename), string(data))
	f.want[id] = false
	return id
}

func (f *fleet) object(name, body string) {
	require.NoError(f.t, f.mem.Memory.Upload(context.Background(), name, strings.NewReader(body)))
}

// remove takes all objects of a block away without a word.
func (f *fleet) remove(id ulid.ULID) {
	for name := range f.mem.Objects() {
		if strings.HasPrefix(name, id.String()) {
			require.NoError(f.t, f.mem.Memory.Delete(context.Background(), name))
		}
	}
	delete(f.want, id)
}

func (f *fleet) mark(id ulid.ULID) block.DeletionMark {
	m := block.DeletionMark{ID: id, Version: 1, DeletionTime: f.clock.now().Unix()}
	require.NoError(f.t, block.WriteDeletionMark(context.Background(), f.mem, m))
	f.want[id] = true
	return m
}

func (f *fleet) announce(changes ...block.Change) {
	require.NoError(f.t, block.Announce(context.Background(), f.bkt, changes...))
}

// announcements lists those that lie in the bucket.
func (f *fleet) announcements() (out []string) {
	for name := range f.mem.Objects() {
		if strings.HasPrefix(name, announceDir) {
			out = append(out, name)
		}
	}
	return out
}

func (f *fleet) ids(n int) []ulid.ULID {
	out := make([]ulid.ULID, n)
	for i := range out {
		out[i] = testID(i)
	}
	return out
}

// look makes a pass that must go well.
func (m *member) look() block.View {
	m.fleet.t.Helper()
	v, err := m.FetchAll(context.Background())
	require.NoError(m.fleet.t, err)
	return v
}

// work is a compactor's round: a pass and a Publish.
func (m *member) work() block.View {
	m.fleet.t.Helper()
	v := m.look()
	require.NoError(m.fleet.t, m.Publish(context.Background()))
	return v
}

// begin is work where there is no manifest, until there is one that is relied on.
func (m *member) begin() block.View {
	m.work()
	return m.work()
}

// check compares a view with what should be there.
func (f *fleet) check(v block.View, why ...any) {
	f.t.Helper()
	got := map[ulid.ULID]bool{}
	for id := range v.Metas {
		got[id] = v.Marks[id].Deletion != nil
	}
	require.Equal(f.t, f.want, got, why...)
}

func (m *member) metric(name string, labels ...string) float64 {
	m.fleet.t.Helper()
	families, err := m.reg.Gather()
	require.NoError(m.fleet.t, err)
	for _, f := range families {
		for _, s := range f.GetMetric() {
			if f.GetName() != name || len(labels) > 0 && s.GetLabel()[0].GetValue() != labels[0] {
				continue
			}
			return s.GetCounter().GetValue() + s.GetGauge().GetValue()
		}
	}
	return 0
}

// TestManifestRequests counts requests for 10,000 blocks (PERFORMANCE T10): of a
// start with an empty disk, and of passes in which nothing has changed.
func TestManifestRequests(t *testing.T) {
	f := newFleet(t)
	for _, id := range f.ids(10_000) {
		f.put(id)
	}
	c := f.member("c")
	f.check(c.begin())
	f.requests()

	began := time.Now()
	r := f.member("")
	v := r.look()
	t.Logf("start with 10,000 blocks: %s, %q", time.Since(began), f.asked)
	require.LessOrEqual(t, len(f.requests()), 5)
	require.True(t, v.FromManifest)
	require.True(t, v.Complete)
	require.Equal(t, f.clock.now(), v.ListedAt)
	f.check(v)

	v = r.look()
	require.Equal(t, []string{"get_if " + manifestName, "list " + announceDir}, f.requests())
	f.check(v)

	f.check(c.work())
	require.Equal(t, []string{"get_if " + manifestName, "list " + announceDir}, f.requests(), "a pass of who publishes, and nothing to publish")

	// An announced block costs one request more.
	id := f.put(testID(20_000))
	f.announce(block.Change{Block: id, Meta: f.meta(id)})
	f.requests()
	f.check(r.look())
	require.Len(t, f.requests(), 3)
	f.check(r.look())
	require.Len(t, f.requests(), 2)

	// A publisher that starts again reads what it wrote, and a listing that is
	// due later reads only the one block that no listing has seen.
	f.clock.add(16 * time.Minute)
	c = f.member("c")
	f.check(c.work())
	require.Equal(t, 1.0, c.metric("firnline_fetcher_reads_total"))
	require.Equal(t, 1.0, c.metric("firnline_fetcher_passes_total", "listing"))
}

// TestManifestAnnounced: what is announced is seen at once, in the order in
// which it was, and what isn't when the bucket is listed next.
func TestManifestAnnounced(t *testing.T) {
	f := newFleet(t)
	a := f.put(testID(1))
	b := testID(2)
	f.announce(block.Change{Block: b, Meta: f.meta(b)})
	require.Empty(t, f.announcements(), "nobody reads them where there is no manifest")
	c, r := f.member("c"), f.member("")
	f.check(c.work())
	f.check(r.look())

	f.put(b)
	f.announce(block.Change{Block: b, Meta: f.meta(b)})
	f.check(r.look())
	f.check(f.member("").look())
	mark := f.mark(a)
	f.announce(block.Change{Block: a, Marks: &block.Marks{Deletion: &mark}})
	v := r.look()
	f.check(v)
	require.Equal(t, mark, *v.Marks[a].Deletion)
	require.Len(t, f.announcements(), 2)
	c.work()
	require.Empty(t, f.announcements())
	require.Equal(t, 2.0, c.metric("firnline_block_manifest_folded_total"))
	f.check(r.look())

	require.NoError(t, block.Unmark(context.Background(), f.mem, a, block.DeletionMarkFilename))
	f.want[a] = false
	f.announce(block.Change{Block: a, Marks: &block.Marks{}})
	f.check(r.look())
	f.remove(b)
	f.announce(block.Change{Block: b, Removed: true})
	f.check(r.look())
	f.check(c.work())
	f.check(r.look())

	// A foreign block shows only when one of those who publish lists.
	foreign := f.put(testID(3))
	require.NotContains(t, r.look().Metas, foreign)
	require.NotContains(t, c.work().Metas, foreign)
	f.clock.add(15 * time.Minute)
	f.check(c.work())
	v = r.look()
	f.check(v)
	require.True(t, v.FromManifest)

	require.Error(t, block.Announce(context.Background(), f.bkt, block.Change{Block: a}))
	require.Error(t, block.Announce(context.Background(), f.bkt, block.Change{Block: a, Removed: true, Marks: &block.Marks{}}))
	require.Error(t, block.Announce(context.Background(), f.bkt, block.Change{Block: b, Meta: f.meta(a)}))
}

// TestManifestWrongAnnouncements: a block that isn't there, one that went
// without a word, one whose removal was announced too early.
func TestManifestWrongAnnouncements(t *testing.T) {
	f, c, r := newReadFleet(t, 20)

	never := testID(100)
	f.announce(block.Change{Block: never, Meta: f.meta(never)})
	require.Contains(t, r.look().Metas, never, "announced")
	still := testID(7)
	f.announce(block.Change{Block: still, Removed: true})
	require.NotContains(t, r.look().Metas, still)
	f.object(announceDir+ulid.Make().String(), "garbage")
	require.NotContains(t, r.look().Metas, still)
	require.Contains(t, r.logs.String(), "announcement can't be used")
	c.work()
	require.Empty(t, f.announcements(), "garbage is cleaned up too")

	f.clock.add(16 * time.Minute)
	silent := testID(3)
	f.remove(silent)
	c.work()
	v := r.look()
	require.NotContains(t, v.Metas, never, "not listed, and not there when asked for")
	require.Contains(t, v.Metas, still, "listed, and so believed")
	require.Contains(t, v.Metas, silent, "missing once")
	f.clock.add(16 * time.Minute)
	f.check(c.work())
	require.Contains(t, r.look().Metas, silent, "the manifest may be wrong, too")
	f.clock.add(6 * time.Minute)
	f.check(r.look())
}

// TestManifestAnnouncementOnTheWay: one whose bytes were spoiled on their way is
// read again before it is given up, by readers and by who folds it.
//
// RELIABILITY B1
func TestManifestAnnouncementOnTheWay(t *testing.T) {
	f := newFleet(t)
	f.put(testID(1))
	c, r := f.member("c"), f.member("")
	c.work()
	f.check(r.look())
	f.put(testID(2))
	f.announce(block.Change{Block: testID(2), Meta: f.meta(testID(2))})
	name := f.announcements()[0]
	good := f.mem.Objects()[name]
	bad := bytes.Clone(good)
	bad[len(bad)-1] ^= 1
	gets := 0
	f.setFail(func(point, object string) error {
		if point == "bucket/get/before" && object == name {
			body := good
			if gets++; gets%2 == 1 {
				body = bad
			}
			f.object(name, string(body))
		}
		return nil
	})
	f.check(r.look())
	f.check(c.work())
	f.setFail(nil)
	require.Equal(t, 4, gets)
	f.check(f.member("").look())
}

// TestManifestUnreadAnnouncements: where announcements are of a newer version, or
// more than anybody folds, the bucket is listed in their place.
func TestManifestUnreadAnnouncements(t *testing.T) {
	f := newFleet(t)
	f.put(testID(1))
	c, r := f.member("c"), f.member("")
	c.work()
	f.check(r.look())
	f.announce(block.Change{Block: testID(1), Meta: f.meta(testID(1))})
	told := f.mem.Objects()[f.announcements()[0]]
	newer := bytes.Clone(told)
	newer[4]++
	for name, put := range map[string]func(){
		"newer": func() { f.object(announceDir+ulid.Make().String(), string(newer)) },
		"many": func() {
			for range 10_001 {
				f.object(announceDir+ulid.Make().String(), string(told))
			}
		},
	} {
		f.put(testID(len(f.want) + 1))
		put()
		v := r.look()
		require.False(t, v.FromManifest, name)
		f.check(v)
		for range 11 { // of which each removes a thousand
			f.check(c.work())
		}
		require.Empty(t, f.announcements(), name)
		v = r.look()
		require.True(t, v.FromManifest, name)
		f.check(v)
	}

	// One that can't be fetched is an error for readers until somebody has listed.
	f.announce(block.Change{Block: testID(1), Meta: f.meta(testID(1))})
	f.setFail(func(point, object string) error {
		return iff(point == "bucket/get/before" && strings.HasPrefix(object, announceDir), errFault)
	})
	v, err := r.FetchAll(context.Background())
	require.ErrorIs(t, err, errFault)
	require.False(t, v.Complete)
	f.check(v)
	_, err = c.FetchAll(context.Background())
	require.ErrorIs(t, err, errFault)
	require.NoError(t, c.Publish(context.Background()))
	require.Empty(t, f.announcements())
	f.check(r.look())
}

// TestManifestBadObject: a manifest that is lost, garbled or written by a newer
// program: readers list as if there were none, and it is written anew, unless a
// newer program keeps it.
//
// RELIABILITY B1, P15
func TestManifestBadObject(t *testing.T) {
	for name, c := range map[string]struct {
		change func(good []byte) []byte // nil: removed
		heals  bool
	}{
		"lost":    {func([]byte) []byte { return nil }, true},
		"empty":   {func([]byte) []byte { return []byte{} }, true},
		"cut":     {func(b []byte) []byte { return b[:len(b)/2] }, true},
		"garbled": {func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, true},
		"newer":   {func(b []byte) []byte { b[4]++; return b }, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			for _, id := range f.ids(10) {
				f.put(id)
			}
			c1, c2, r := f.member("c1"), f.member("c2"), f.member("")
			f.check(c1.work())
			f.check(r.look())
			// One that was folded and not removed, and one that wasn't folded: neither is to be done again.
			gone, fresh := testID(50), f.put(testID(51))
			f.announce(block.Change{Block: gone, Meta: f.meta(gone)})
			f.announce(block.Change{Block: fresh, Meta: f.meta(fresh)})

			good := f.mem.Objects()[manifestName]
			if bad := c.change(bytes.Clone(good)); bad != nil {
				f.object(manifestName, string(bad))
			} else {
				require.NoError(t, f.mem.Memory.Delete(context.Background(), manifestName))
			}
			bad := f.mem.Objects()[manifestName]
			v := r.look()
			f.check(v)
			require.False(t, v.FromManifest)
			require.Equal(t, 1.0, r.metric("firnline_block_manifest_unusable"))
			f.check(f.member("").look())
			f.check(c1.work())
			f.check(c2.work())
			if !c.heals {
				require.Equal(t, bad, f.mem.Objects()[manifestName])
				require.Equal(t, 1.0, c1.metric("firnline_block_manifest_unwritable"))
				f.check(c1.work())
				require.Equal(t, 1, strings.Count(c1.logs.String(), "no bucket manifest is written"))
				return
			}
			require.Empty(t, f.announcements())
			v = f.member("").look()
			f.check(v)
			require.True(t, v.FromManifest)
			v = r.look()
			f.check(v)
			require.True(t, v.FromManifest)
		})
	}
}

// TestManifestUnknownMarks: marks of an unknown version reach readers of the
// manifest. Whoever could make nothing of an object, of a mark or a meta.json, may
// have been an older program, so each process that lists the bucket reads it itself.
//
// RELIABILITY P15
func TestManifestUnknownMarks(t *testing.T) {
	f := newFleet(t)
	id, newer := f.put(testID(1)), testID(2)
	f.object(block.Name(newer, block.MetaFilename), `{"version":2,"ulid":"`+newer.String()+`"}`)
	f.object(block.Name(id, block.NoCompactMarkFilename), `{"version":7}`)
	f.object(block.Name(id, block.NoDownsampleMarkFilename), `{"version":7}`)
	f.object(block.Name(id, block.DeletionMarkFilename), `{"version":7}`)
	c1 := f.member("c1")
	c1.begin()
	v := f.member("").look()
	require.True(t, v.FromManifest)
	require.Contains(t, v.Marks[id].NoCompact.Details, "unknown version 7")
	require.Contains(t, v.Marks[id].NoDownsample.Details, "unknown version 7")
	require.Nil(t, v.Marks[id].Deletion)
	require.ErrorIs(t, v.Problems[newer], block.ErrUnknownVersion)

	f.requests()
	c2 := f.member("c2")
	f.clock.add(time.Hour)
	c2.work()
	require.Subset(t, f.requests(), []string{
		"get " + block.Name(newer, block.MetaFilename),
		"get " + block.Name(id, block.DeletionMarkFilename),
		"get " + block.Name(id, block.NoCompactMarkFilename),
		"get " + block.Name(id, block.NoDownsampleMarkFilename),
	})
	require.Equal(t, 3, strings.Count(c2.logs.String(), "level=WARN"), c2.logs)
	f.clock.add(time.Hour)
	c2.work()
	require.NotContains(t, f.requests(), "get "+block.Name(newer, block.MetaFilename), "this program knows by now that it can't read it")
	require.Equal(t, 3, strings.Count(c2.logs.String(), "level=WARN"), c2.logs)
}

// TestManifestShrunken: a manifest that lacks more than a fifth of what is known
// is doubted as a listing is (RELIABILITY rule 6).
func TestManifestShrunken(t *testing.T) {
	f, c, r := newReadFleet(t, 10)

	// Somebody writes a manifest of only a few blocks: another bucket's, say.
	other := newFleet(t)
	for _, id := range f.ids(5) {
		other.put(id)
	}
	other.member("c").begin()
	f.object(manifestName, string(other.mem.Objects()[manifestName]))
	v := r.look()
	f.check(v)
	require.False(t, v.FromManifest, "it is compared with the bucket")
	require.Equal(t, 1.0, r.metric("firnline_fetcher_listing_faults_total"))
	f.check(c.work())
	v = r.look()
	f.check(v)
	require.True(t, v.FromManifest, "and written anew")

	// The listing lacks them as well: nothing is dropped or published.
	before := f.mem.Objects()[manifestName]
	f.mem.hide = func(name string) bool { return !strings.HasPrefix(name, "firnline/") }
	for range 4 {
		f.clock.add(16 * time.Minute)
		v, err := c.FetchAll(context.Background())
		require.ErrorIs(t, err, block.ErrListing)
		require.False(t, v.Complete)
		f.check(v)
		require.NoError(t, c.Publish(context.Background()))
		require.Equal(t, before, f.mem.Objects()[manifestName])
	}
	fresh := f.member("d")
	v, err := fresh.FetchAll(context.Background())
	require.ErrorIs(t, err, block.ErrListing, "so it is for who starts now")
	f.check(v)
	f.mem.hide = nil
	f.check(fresh.work())
	f.check(f.member("").look())
}

// TestManifestRace: two write at once; neither's changes are lost.
func TestManifestRace(t *testing.T) {
	f := newFleet(t)
	for _, id := range f.ids(10) {
		f.put(id)
	}
	a, b := f.member("a"), f.member("b")
	a.work()
	b.look()
	for round := range 5 {
		f.clock.add(16 * time.Minute)
		foreign, told := f.put(testID(100+round)), f.put(testID(200+round))
		a.look() // lists, and finds both
		mark := f.mark(told)
		f.announce(block.Change{Block: told, Meta: f.meta(told)}, block.Change{Block: told, Marks: &block.Marks{Deletion: &mark}})
		once := false
		a.SetFault(func(step string) error {
			if step == "manifest/before-write" && !once {
				once = true
				b.work() // folds the announcement meanwhile
			}
			return nil
		})
		require.NoError(t, a.Publish(context.Background()))
		require.True(t, once)
		a.SetFault(nil)
		f.check(f.member("").look(), "round %d: %s and %s", round, foreign, told)
		f.check(b.look())
		require.Empty(t, f.announcements())
	}
}

// TestManifestDoubted: a block that one process still doubts after the others
// have given it up does not come back.
func TestManifestDoubted(t *testing.T) {
	f := newFleet(t)
	for _, id := range f.ids(10) {
		f.put(id)
	}
	a, b := f.member("a"), f.member("b")
	f.check(a.work())
	f.check(b.work())
	f.remove(testID(3))
	for range 2 {
		f.clock.add(16 * time.Minute)
		b.work()
	}
	f.check(f.member("").look())
	// An announcement that it can't read makes the other list, too.
	f.announce(block.Change{Block: testID(0), Meta: f.meta(testID(0))})
	name := f.announcements()[0]
	newer := f.mem.Objects()[name]
	newer[4]++
	f.object(name, string(newer))
	v := a.work()
	require.False(t, v.FromManifest)
	require.Contains(t, v.Metas, testID(3), "missing once")
	f.check(f.member("").look())
}

// TestManifestLacksOne: a block that the manifest has lost, and that is there,
// stays, and is asked for now and then only.
func TestManifestLacksOne(t *testing.T) {
	f, other := newFleet(t), newFleet(t)
	for i, id := range f.ids(10) {
		f.put(id)
		if i > 0 {
			other.put(id)
		}
	}
	f.member("c").begin()
	other.member("c").begin()
	r := f.member("")
	f.check(r.look())
	f.object(manifestName, string(other.mem.Objects()[manifestName]))
	f.requests()
	for range 18 {
		f.check(r.look())
		f.clock.add(time.Minute)
	}
	asked := slices.DeleteFunc(f.requests(), func(s string) bool { return !strings.HasPrefix(s, "exists") })
	require.Len(t, asked, 3, "once in six minutes")
}

// TestManifestFoldedOnce: an announcement that was folded and, since its
// publishers die before they remove it, still lies there, is not applied again.
func TestManifestFoldedOnce(t *testing.T) {
	f := newFleet(t)
	f.put(testID(0))
	f.member("c").work()
	id := f.put(testID(1))
	f.announce(block.Change{Block: id, Meta: f.meta(id)})
	dying := func() {
		c := f.member("c")
		c.SetFault(func(step string) error { return iff(step == "manifest/after-write", errFault) })
		c.look()
		require.ErrorIs(t, c.Publish(context.Background()), errFault)
		f.check(f.member("").look())
	}
	dying()
	f.remove(id)
	f.announce(block.Change{Block: id, Removed: true})
	dying()
	other := f.put(testID(2))
	f.announce(block.Change{Block: other, Meta: f.meta(other)})
	dying()
	require.Len(t, f.announcements(), 3)
	c := f.member("c")
	f.check(c.work())
	require.Empty(t, f.announcements())
	f.check(f.member("").look())

	// What was written and not removed is not written again.
	f.announce(block.Change{Block: other, Meta: f.meta(other)})
	c.SetFault(func(step string) error { return iff(step == "manifest/after-write", errFault) })
	c.look()
	require.ErrorIs(t, c.Publish(context.Background()), errFault)
	c.SetFault(nil)
	require.NoError(t, c.Publish(context.Background()))
	require.Empty(t, f.announcements())
	require.Equal(t, 1.0, c.metric("firnline_block_manifest_writes_total"))
}

// TestManifestManyPublishers: any number of them, at once, lose nothing.
//
// RELIABILITY P10
func TestManifestManyPublishers(t *testing.T) {
	f := newFleet(t)
	f.put(testID(0))
	f.member("first").work()
	var wg sync.WaitGroup
	for n := range 4 {
		c := f.member(fmt.Sprint("c", n))
		wg.Go(func() {
			for i := range 10 {
				id := testID(1000*n + i + 1)
				data, err := f.meta(id).Encode()
				if err != nil || f.mem.Memory.Upload(context.Background(), block.Name(id, block.MetaFilename), bytes.NewReader(data)) != nil {
					t.Error("no block", err)
				}
				if err := block.Announce(context.Background(), f.bkt, block.Change{Block: id, Meta: f.meta(id)}); err != nil {
					t.Error(err)
				}
				_, err = c.FetchAll(context.Background())
				// Who loses all its tries leaves the rest to the next round.
				if pubErr := c.Publish(context.Background()); err != nil || pubErr != nil && !strings.Contains(pubErr.Error(), "others were faster") {
					t.Error(err, pubErr)
				}
			}
		})
	}
	wg.Wait()
	for n := range 4 {
		for i := range 10 {
			f.want[testID(1000*n+i+1)] = false
		}
	}
	f.check(f.member("last").work())
	require.Empty(t, f.announcements())
	m, err := block.ReadManifest(context.Background(), f.bkt)
	require.NoError(t, err)
	require.Len(t, m.Metas, 41)
}

// TestManifestOneLists: of several that publish one lists in each interval.
func TestManifestOneLists(t *testing.T) {
	f := newFleet(t)
	f.put(testID(0))
	members := []*member{f.member("a"), f.member("b"), f.member("c")}
	members[0].work()
	for _, m := range members {
		m.work()
	}
	f.requests()
	for range 8 {
		f.clock.add(16 * time.Minute)
		for _, m := range members {
			m.look() // all of them at once, before any has published
		}
		for _, m := range members {
			require.NoError(t, m.Publish(context.Background()))
		}
	}
	lists := 0
	for _, r := range f.requests() {
		if r == "list " {
			lists++
		}
	}
	require.Equal(t, 8, lists)
}

// TestManifestAbandoned: where nobody keeps the manifest readers list by
// themselves, whatever their clock says, and go back to it when somebody does.
func TestManifestAbandoned(t *testing.T) {
	f := newFleet(t)
	for _, id := range f.ids(10) {
		f.put(id)
	}
	c, r := f.member("c"), f.member("")
	f.check(c.begin())
	f.check(r.look())
	f.clock.add(29 * time.Minute)
	foreign := f.put(testID(100))
	require.NotContains(t, r.look().Metas, foreign)
	f.clock.add(2 * time.Minute)
	for range 3 {
		v := r.look()
		f.check(v)
		require.False(t, v.FromManifest)
		f.clock.add(3 * time.Minute)
	}
	f.check(c.work())
	f.check(r.look())
	require.True(t, r.look().FromManifest)

	// Blocks that are long gone don't come back with an old manifest.
	for i := range 5 {
		f.remove(testID(i))
	}
	f.clock.add(30 * 24 * time.Hour)
	v := f.member("").look()
	f.check(v)
	require.True(t, v.Complete)
	c = f.member("c")

	// A reader whose clock is wrong lists until it has seen the manifest change.
	for _, skew := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		f.clock.add(6 * time.Minute)
		f.check(c.work())
		wrong := f.member("")
		wrong.SetClock(func() time.Time { return f.clock.now().Add(skew) })
		require.Equal(t, skew < 0, wrong.look().FromManifest)
		for range 4 {
			f.clock.add(16 * time.Minute)
			f.check(c.work())
			require.True(t, wrong.look().FromManifest)
		}
		f.clock.add(31 * time.Minute)
		require.False(t, wrong.look().FromManifest)
	}
}

// TestManifestUnwritable: everything works on listings where a manifest can't
// be written safely, and that is said once.
//
// RELIABILITY B5, P14
func TestManifestUnwritable(t *testing.T) {
	denied := fmt.Errorf("put: %w", fs.ErrPermission)
	for name, prepare := range map[string]func(f *fleet){
		"no conditions": func(f *fleet) { f.mem.noCond = true },
		"unsupported": func(f *fleet) {
			f.mem.fail = func(op, _ string) error { return iff(op == "putif", errors.ErrUnsupported) }
		},
		"read-only": func(f *fleet) {
			f.mem.fail = func(op, _ string) error { return iff(op == "putif" || op == "put", denied) }
		},
		"manifest denied": func(f *fleet) {
			f.setFail(func(point, object string) error {
				return iff(strings.HasSuffix(point, "/before") && object == manifestName, denied)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			prepare(f)
			c, r := f.member("c"), f.member("")
			for i := range 3 {
				f.put(testID(i))
				f.check(c.work())
				f.check(r.look())
				f.clock.add(time.Minute)
			}
			require.NotContains(t, f.mem.Objects(), manifestName)
			require.Equal(t, 1.0, c.metric("firnline_block_manifest_unwritable"))
			require.Equal(t, 1, strings.Count(c.logs.String(), "no bucket manifest is written"), c.logs)
			require.Zero(t, c.metric("firnline_block_manifest_write_failures_total"))
		})
	}
}

func iff(is bool, err error) error {
	if is {
		return err
	}
	return nil
}

// TestManifestCrash: who publishes dies at each request in turn, before it is
// made and after; whoever comes next finishes, and readers see what is there all along.
//
// RELIABILITY C1 for the manifest
func TestManifestCrash(t *testing.T) {
	dead := errors.New("dead")
	for step := 0; ; step++ {
		f := newFleet(t)
		for _, id := range f.ids(10) {
			f.put(id)
		}
		f.member("first").work()
		r := f.member("")
		f.check(r.look())
		for i := range 3 {
			id := f.put(testID(50 + i))
			f.announce(block.Change{Block: id, Meta: f.meta(id)})
		}
		f.remove(testID(50))
		f.announce(block.Change{Block: testID(50), Removed: true})
		f.clock.add(16 * time.Minute)
		foreign := f.put(testID(100))
		seen := maps.Clone(f.want)
		delete(seen, foreign)

		steps := 0
		f.setFail(func(string, string) error {
			steps++
			return iff(steps > step, dead)
		})
		c := f.member("c")
		_, _ = c.FetchAll(context.Background())
		_ = c.Publish(context.Background())
		f.setFail(nil)

		v := r.look()
		for id := range seen {
			require.Contains(t, v.Metas, id, "step %d", step)
		}
		require.NotContains(t, v.Metas, testID(50), "step %d", step)
		f.clock.add(6 * time.Minute) // the lease of the dead lapses
		f.check(f.member("next").work(), "step %d", step)
		require.Empty(t, f.announcements(), "step %d", step)
		f.check(f.member("").look(), "step %d", step)
		f.check(r.look(), "step %d", step)
		if steps <= step {
			require.Greater(t, step, 20)
			return
		}
	}
}

// TestManifestRandom: blocks come, are marked and go, announced or not, while
// publishers and readers work, die and meet faults. Readers never lose a block
// that is there and known, and once all is quiet all of them see what is there.
func TestManifestRandom(t *testing.T) {
	for seed := range uint64(40) {
		runRandom(t, seed)
	}
}

func runRandom(t *testing.T, seed uint64) {
	d := rand.New(rand.NewPCG(seed, 0))
	f := newFleet(t)
	members := []*member{f.member("a"), f.member("b"), f.member(""), f.member("")}
	names := []string{"a", "b", "", ""}
	known := make([]map[ulid.ULID]bool, len(members)) // what each has seen last
	next := 0
	for range 10 {
		f.put(testID(next))
		next++
	}
	some := func() (ulid.ULID, bool) {
		ids := slices.SortedFunc(maps.Keys(f.want), ulid.ULID.Compare)
		if len(ids) == 0 {
			return ulid.ULID{}, false
		}
		return ids[d.IntN(len(ids))], true
	}
	for range 150 {
		switch d.IntN(10) {
		case 0, 1:
			id := f.put(testID(next))
			next++
			if d.IntN(3) > 0 {
				f.announce(block.Change{Block: id, Meta: f.meta(id)})
			}
		case 2:
			if id, ok := some(); ok && !f.want[id] {
				mark := f.mark(id)
				if d.IntN(3) > 0 {
					f.announce(block.Change{Block: id, Marks: &block.Marks{Deletion: &mark}})
				}
			}
		case 3:
			if id, ok := some(); ok && f.want[id] {
				f.remove(id)
				if d.IntN(3) > 0 {
					f.announce(block.Change{Block: id, Removed: true})
				}
			}
		case 4:
			switch d.IntN(6) {
			case 0:
				f.object(manifestName, "garbage")
			case 1:
				_ = f.mem.Memory.Delete(context.Background(), manifestName)
			}
		case 5:
			f.clock.add(time.Duration(d.Int64N(int64(20 * time.Minute))))
		default:
			i := d.IntN(len(members))
			if d.IntN(8) == 0 {
				members[i], known[i] = f.member(names[i]), nil
			}
			if left := d.IntN(30); left < 15 {
				f.setFail(func(string, string) error { left--; return iff(left < 0, errFault) })
			}
			v, _ := members[i].FetchAll(context.Background())
			_ = members[i].Publish(context.Background())
			f.setFail(nil)
			for id := range known[i] {
				if _, there := f.want[id]; there {
					require.Contains(t, v.Metas, id, "seed %d: a block that was known and is there", seed)
				}
			}
			known[i] = map[ulid.ULID]bool{}
			for id := range v.Metas {
				known[i][id] = true
			}
		}
	}
	for range 4 {
		f.clock.add(16 * time.Minute)
		for _, m := range members[:2] {
			m.work()
		}
		for _, m := range members[2:] {
			m.look()
		}
	}
	for _, m := range append(members, f.member(""), f.member("z")) {
		f.check(m.look(), "seed %d", seed)
	}
	require.Empty(t, f.announcements(), "seed %d", seed)
	m, err := block.ReadManifest(context.Background(), f.bkt)
	require.NoError(t, err)
	require.Len(t, m.Metas, len(f.want), "seed %d", seed)
}

// TestManifestFirst: what the listing that a first manifest is made of lacks is
// seen by the next pass of a compactor and by each reader meanwhile, be it that
// keys were hidden or that a block came while it was made, and was not announced
// for want of a manifest. RELIABILITY B3
func TestManifestFirst(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("lost=%t", lost), func(t *testing.T) {
			f := newFleet(t)
			for _, id := range f.ids(10) {
				f.put(id)
			}
			c := f.member("c")
			if lost {
				f.check(c.begin())
				require.NoError(t, f.mem.Delete(context.Background(), manifestName))
			}
			c.look()
			missed := f.put(testID(100))
			require.NoError(t, block.Announce(context.Background(), f.bkt, block.Change{Block: missed, Meta: f.meta(missed)}))
			require.NoError(t, c.Publish(context.Background()))
			require.Empty(t, f.announcements())

			r := f.member("")
			v := r.look()
			f.check(v)
			require.False(t, v.FromManifest)
			f.check(c.work())
			v = r.look()
			f.check(v)
			require.True(t, v.FromManifest)
			f.check(f.member("").look())
		})
	}
}

// TestManifestShipped: a shipper announces what it sends, each block once it is
// there, and goes on where that fails.
func TestManifestShipped(t *testing.T) {
	r := newRig(t)
	f := &fleet{t: t, mem: r.bkt, bkt: r.bkt, clock: r.clock}
	c, reader := f.member("c"), f.member("")
	c.begin()
	require.Empty(t, reader.look().Metas)
	id := r.cut(0, blocktest.Options{})
	_, err := r.Sync(context.Background())
	require.NoError(t, err)
	v := reader.look()
	require.True(t, v.FromManifest)
	want, err := block.FetchMeta(context.Background(), r.bkt, id)
	require.NoError(t, err)
	require.Equal(t, want, v.Metas[id])

	id = r.cut(1, blocktest.Options{})
	r.bkt.fail = func(op, name string) error { return iff(op == "put" && strings.HasPrefix(name, announceDir), errFault) }
	n, err := r.Sync(context.Background())
	require.NoError(t, err)
	require.Equal(t, 1, n)
	r.bkt.fail = nil
	require.NotContains(t, reader.look().Metas, id)
	r.clock.add(16 * time.Minute)
	c.work()
	require.Contains(t, reader.look().Metas, id)

	// Killed between meta.json and the announcement, it announces when it starts again.
	id = r.cut(2, blocktest.Options{})
	r.fault = func(step string) error { return iff(step == block.StepMeta, errFault) }
	r.restart()
	_, err = r.Sync(context.Background())
	require.ErrorIs(t, err, errFault)
	require.NotContains(t, reader.look().Metas, id)
	r.fault = nil
	r.restart()
	_, err = r.Sync(context.Background())
	require.NoError(t, err)
	require.Contains(t, reader.look().Metas, id)
}

// BenchmarkFetchManifest is the start of a reader, and a pass in which nothing
// has changed.
func BenchmarkFetchManifest(b *testing.B) {
	for _, n := range []int{10_000} {
		f := newFleet(b)
		for _, id := range f.ids(n) {
			f.put(id)
		}
		f.member("c").work()
		b.Run(fmt.Sprintf("blocks=%d/start", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				require.Len(b, f.member("").look().Metas, n)
			}
		})
		r := f.member("")
		r.look()
		b.Run(fmt.Sprintf("blocks=%d/unchanged", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				require.Len(b, r.look().Metas, n)
			}
		})
	}
}

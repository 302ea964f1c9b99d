package model

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact"
	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/storeapi"
)

// TestRandomCompaction ships blocks over weeks of simulated time, in time, late
// and more than once, and lets one to three compactors loose on the bucket: they
// merge, deduplicate, split, downsample, apply a retention policy and carry
// delete requests out, while the bucket fails, and are killed, paused and started
// anew. At any time what policy keeps is readable, and nothing is that was
// deleted. With all faults gone a few passes do all there is to do, and each
// answer equals the model's. RELIABILITY P3
//
// It runs a few seeds, and one or two new ones.
func TestRandomCompaction(t *testing.T) {
	if asked(t, randomCompaction) {
		return
	}
	for _, n := range []uint64{43, 1015, 2006} {
		seed(t, n, randomCompaction)
	}
	seedsFor(t, freshSeed(t), 20*time.Second, randomCompaction)
}

func randomCompaction(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, seed))
	h := newHistory(t, rnd)
	defer h.stopAll()
	gateway, stop := openGateway(t, h.memory, h.clock.now, h.readerFlags()...)
	defer stop()
	h.pass(h.span + day)
	for range 3 + rnd.IntN(6) {
		h.pass(h.span + rnd.Int64N(3*day))
		h.eventually(gateway) // readers look at the bucket more often than blocks are removed
		if rnd.IntN(5) == 0 {
			h.request()
		}
		h.work()
		h.glance()
		h.eventually(gateway)
	}
	h.heal()
	h.settle()
	h.glance()
	h.eventually(gateway)
	h.tiers()
	for _, resolution := range []int64{block.Resolution5m, block.Resolution1h} {
		h.until(func() error { return h.checkTier(gateway, resolution) })
	}
	h.compareAnswers(gateway)
	h.forgotten()
}

// patience is how long compactors may be at work before time passes meanwhile.
const patience = 5 * time.Second

// work lets each compactor do a pass or two, all at once.
func (h *history) work() {
	ended, running := make(chan *worker), 0
	var paused []*worker
	moved := time.Now() // the clock, so that claims lapse
	for _, w := range h.workers {
		if again := w.rnd.IntN(4) == 0; again || w.Compactor == nil || w.process.isDead() {
			w.start(w.newProcess())
		}
		w.process.faults.drawOf(0, 0, 1, 3, 20)
		running++
		passes := 1 + w.rnd.IntN(2)
		go func() {
			for range passes {
				_ = w.Once(context.Background()) // what it could not do shows in the end
			}
			ended <- w
		}()
	}
	for running > 0 {
		select {
		case w := <-ended:
			running--
			paused = slices.DeleteFunc(paused, func(p *worker) bool { return p == w })
		case <-time.After(20 * time.Millisecond):
		}
		if time.Since(moved) > patience { // somebody waits for one who died with a claim
			h.clock.add(30 * minute)
			moved = time.Now()
		}
		for _, w := range h.workers {
			select {
			case <-w.process.paused:
				w.process.paused = nil
				paused = append(paused, w)
			default:
			}
		}
		if running > 0 && running == len(paused) {
			h.overtake(paused)
			paused = nil
		}
	}
}

// overtake does the work of those that stand still, long after their claims have
// lapsed, and lets them go on then.
func (h *history) overtake(paused []*worker) {
	h.clock.add(30*minute + paused[0].rnd.Int64N(h.deleteDelay/2))
	h.log.Info("all at work stand still", "workers", len(paused))
	rival := &worker{history: h, rnd: fork(paused[0].rnd), name: len(h.workers), dir: h.TempDir()}
	rival.start(&process{faults: &faults{}})
	_ = rival.Once(context.Background())
	rival.stop()
	h.glance()
	for _, w := range paused {
		close(w.process.resume)
	}
}

func (w *worker) newProcess() *process {
	p := &process{faults: &faults{rnd: fork(w.rnd)}, paused: make(chan struct{}), resume: make(chan struct{})}
	switch w.rnd.IntN(4) {
	case 0:
		p.dieAt = 1 + w.rnd.IntN(3000)
	case 1:
		p.pauseAt = 1 + w.rnd.IntN(2000)
	}
	switch w.rnd.IntN(8) {
	case 0: // so much that it may do nothing
		p.skew = []int64{-30 * day, -hour, hour, 30 * day}[w.rnd.IntN(4)]
	case 1, 2, 3:
		p.skew = w.rnd.Int64N(8*minute) - 4*minute
	}
	w.log.Info("a worker starts", "worker", w.name, "skew_ms", p.skew, "dies_at", p.dieAt, "stands_still_at", p.pauseAt)
	return p
}

func (h *history) stopAll() {
	for _, w := range h.workers {
		w.stop()
	}
}

// heal ends all faults and ships what is left.
func (h *history) heal() {
	h.stopAll()
	h.log.Info("all faults end")
	h.late = false
	for _, w := range h.writers {
		h.shipSome(w)
	}
	h.clock.add(completeAfter + h.rest) // claims lapse, delete requests may end
}

// completeAfter is how long after its end a window is complete for sure, ms.
const completeAfter = 13 * hour

// settlesWithin is how many passes a compactor has after all faults are gone.
const settlesWithin = 8

// settle has one compactor do all there is to do.
func (h *history) settle() {
	w := &worker{history: h, rnd: fork(h.rnd), name: len(h.workers), dir: h.TempDir()}
	w.start(&process{faults: &faults{}})
	defer w.stop()
	var before []string
	for range settlesWithin {
		require.NoError(h, w.Once(context.Background()), "no fault is left")
		h.noteSplits()
		now := h.live()
		if slices.Equal(before, now) {
			return
		}
		before = now
		h.clock.add(20 * minute)
	}
	require.Fail(h, "no end of work", h.plan())
}

// plan is what a compactor would do now, for the message of a failure.
func (h *history) plan() string {
	w := &worker{history: h, dir: h.TempDir()}
	text, err := compact.Plan(context.Background(), w.config(), compact.Parts{Bucket: h.memory, Log: slog.New(slog.DiscardHandler), Now: h.clock.now})
	return fmt.Sprintf("%v\n%s", err, text)
}

// live names the blocks that are visible and not marked.
func (h *history) live() (out []string) {
	objects := h.memory.Objects()
	for name := range objects {
		if id, rel, ok := block.SplitName(name); ok && rel == block.MetaFilename && objects[block.Name(id, block.DeletionMarkFilename)] == nil {
			out = append(out, id.String())
		}
	}
	slices.Sort(out)
	return out
}

// readerFlags are those of a gateway: one that leaves marked blocks alone at once,
// or goes on with them for as long as it may.
func (h *history) readerFlags() []string {
	out := []string{"--ignore-deletion-marks-delay=" + []string{"0s", "24h"}[h.reading.IntN(2)]}
	if !h.announced {
		out = append(out, "--block-list-interval=1s")
	}
	return out
}

// errDeleted tells that samples show that were deleted, which readers have a
// moment for.
var errDeleted = errors.New("deleted samples show")

// glance looks at the bucket as a gateway does that starts now: there is no
// moment without a live copy. RELIABILITY P3
func (h *history) glance() {
	h.Helper()
	s, stop := openGateway(h, h.memory, h.clock.now, h.readerFlags()...)
	defer stop()
	err := h.check(s)
	for end := time.Now().Add(soon); errors.Is(err, errDeleted) && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		err = h.check(s)
	}
	require.NoError(h, err)
}

// tiers looks at downsampled data as a gateway does that starts now.
func (h *history) tiers() {
	h.Helper()
	s, stop := openGateway(h, h.memory, h.clock.now, h.readerFlags()...)
	defer stop()
	for _, resolution := range []int64{block.Resolution5m, block.Resolution1h} {
		require.NoError(h, h.checkTier(s, resolution))
	}
}

// eventually waits for a gateway that lives through it all to come to the same.
func (h *history) eventually(s storeapi.Store) {
	h.Helper()
	h.until(func() error { return h.check(s) })
}

func (h *history) until(check func() error) {
	h.Helper()
	var err error
	for end := time.Now().Add(soon); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	require.NoError(h, err, "the gateway has not converged")
}

// got is what a gateway has of a series.
type got struct {
	labels labels.Labels
	raw    []Sample // by time
	chunks []storeapi.Chunk
}

// fetch returns what a gateway has of each series, without some labels.
func (h *history) fetch(s storeapi.Store, resolution int64, without ...string) (map[string]*got, error) {
	sel := storeapi.Selection{
		Mint: 0, Maxt: math.MaxInt64, MaxResolution: resolution,
		Aggregates: []storeapi.Aggregate{storeapi.AggregateCount, storeapi.AggregateSum, storeapi.AggregateMin, storeapi.AggregateMax, storeapi.AggregateCounter},
		Matchers: []*labels.Matcher{
			labels.MustNewMatcher(labels.MatchNotEqual, "__name__", ""), labels.MustNewMatcher(labels.MatchNotEqual, "cluster", "bad"),
		},
	}
	set, err := s.Series(context.Background(), sel)
	if err != nil {
		return nil, err
	}
	defer set.Close()
	out := map[string]*got{}
	for set.Next() {
		at := set.At()
		lset := labels.NewBuilder(at.Labels).Del(without...).Labels()
		g := out[lset.String()]
		if g == nil {
			g = &got{labels: lset}
			out[lset.String()] = g
		}
		for _, c := range at.Chunks {
			if g.chunks = append(g.chunks, c); c.Aggr != nil {
				continue
			}
			samples, err := decode(c.Raw)
			if err != nil {
				return nil, err
			}
			g.raw = append(g.raw, samples...)
		}
	}
	for _, g := range out {
		slices.SortStableFunc(g.raw, func(a, b Sample) int { return cmp.Compare(a.Time, b.Time) })
		g.raw = slices.CompactFunc(g.raw, Equal)
		slices.SortStableFunc(g.chunks, func(a, b storeapi.Chunk) int { return cmp.Compare(a.MinTime, b.MinTime) })
	}
	return out, set.Err()
}

// reference is the model by the labels that a gateway's series have.
func (h *history) reference() *Model {
	if !h.replicaLabel {
		return h.model
	}
	if h.plain == nil {
		h.plain = h.model.Without("replica")
	}
	return h.plain
}

// merged tells whether a series is what deduplication has chosen from two. Of
// equal replicas one may lack what comes late: where it is chosen until then, the
// other's first sample counts as too near to its last, but for chain.
func (h *history) merged(lset labels.Labels) bool {
	return h.replicaLabel && (lset.Get("cluster") == "own" || h.unlike)
}

// check compares raw data with the model: all there is was written, and all that
// policy keeps is there.
func (h *history) check(s storeapi.Store) error {
	var without []string // where replicas are merged for good, of some only one may be there by now
	if h.replicaLabel {
		without = []string{"replica"}
	}
	all, err := h.fetch(s, 0, without...)
	if err != nil {
		return err
	}
	ref := h.reference()
	for key := range all {
		if ref.series[key] == nil {
			return fmt.Errorf("series %s was never written", key)
		}
	}
	for key, s := range ref.series {
		g := all[key]
		if g == nil {
			g = &got{labels: s.labels}
		}
		if err := h.noneTooMany(s, g); err != nil {
			return err
		}
		if err := h.noneMissing(s, g); err != nil {
			return err
		}
	}
	return nil
}

func (h *history) noneTooMany(s *series, g *got) error {
	for i, x := range g.raw {
		at, there := slices.BinarySearchFunc(s.samples, x.Time, func(have Sample, t int64) int { return cmp.Compare(have.Time, t) })
		switch {
		case !there && h.deleted(s.labels, x.Time):
			return fmt.Errorf("%w: %s at %s", errDeleted, s.labels, when(x.Time))
		case !there:
			return fmt.Errorf("%s at %s was never written", s.labels, when(x.Time))
		case h.merged(s.labels):
			if !h.ofReplica(s.labels, x) {
				return fmt.Errorf("%s at %s: no replica has %v", s.labels, when(x.Time), x)
			}
		case i > 0 && g.raw[i-1].Time == x.Time, !Equal(s.samples[at], x):
			return fmt.Errorf("%s at %s is %v, want %v", s.labels, when(x.Time), x, s.samples[at])
		}
	}
	return nil
}

// ofReplica tells whether a replica has a sample. Values of counters are changed
// where replicas meet.
func (h *history) ofReplica(lset labels.Labels, x Sample) bool {
	if name := lset.Get("__name__"); name != "queue" && name != "temperature" {
		return true
	}
	b := labels.NewBuilder(lset)
	return h.model.Has(b.Set("replica", "a").Labels(), x) || h.model.Has(b.Set("replica", "b").Labels(), x)
}

func (h *history) deleted(lset labels.Labels, t int64) bool {
	return slices.ContainsFunc(h.requests, func(r request) bool { return r.mint <= t && t <= r.maxt && matches(lset, r.matchers) })
}

// bridged is how many scrapes replicas that are merged may be without a sample.
const bridged = 4

// tolerance is how far from a sample of one replica deduplication may have one.
func (h *history) tolerance() int64 {
	if h.dedup == "chain" {
		return 0
	}
	return bridged * h.interval
}

func (h *history) noneMissing(s *series, g *got) error {
	from := int64(math.MinInt64)
	if keep := h.keeps(s.labels, 0); keep > 0 {
		from = h.clock.ms() - keep
	}
	tolerance := int64(0)
	if h.merged(s.labels) {
		tolerance = h.tolerance()
	}
	at := 0
	for _, want := range within(s.samples, from, math.MaxInt64) {
		for at < len(g.raw) && g.raw[at].Time < want.Time-tolerance {
			at++
		}
		if (at == len(g.raw) || g.raw[at].Time > want.Time+tolerance) && !h.heldBack(s.labels, times(g.raw), want.Time, 0) {
			return fmt.Errorf("%s at %s is missing, now %s", s.labels, when(want.Time), when(h.clock.ms()))
		}
	}
	return nil
}

// heldBack tells whether penalty may have left out what a replica has at t, given
// the times at which there is something: where one goes on after a gap it holds the
// other back for twice as long (docs/decisions/0001-deduplication.md). What comes
// late may fill such a gap, but not bring back what was left out by then. Where all
// that is told by the hour it may be by some time longer.
func (h *history) heldBack(lset labels.Labels, there []int64, t, longer int64) bool {
	if h.dedup != "penalty" || !h.merged(lset) {
		return false
	}
	lset = labels.NewBuilder(lset).Del("replica").Labels()
	if behindGap(there, t, longer) || !h.oneCameLate(lset.String()) {
		return behindGap(there, t, longer)
	}
	return slices.ContainsFunc([]string{"a", "b"}, func(replica string) bool {
		s := h.model.series[labels.NewBuilder(lset).Set("replica", replica).Labels().String()]
		return s != nil && behindGap(times(h.inTime(s)), t, longer)
	})
}

// behindGap tells whether t is no further behind a gap than twice its length, and
// some time longer.
func behindGap(there []int64, t, longer int64) bool {
	for i := 1; i < len(there) && there[i] <= t; i++ {
		if t <= there[i]+2*(there[i]-there[i-1])+longer {
			return true
		}
	}
	return false
}

// inTime are the samples of a series that did not come late.
func (h *history) inTime(s *series) []Sample {
	key := s.labels.String()
	return slices.DeleteFunc(slices.Clone(s.samples), func(x Sample) bool {
		return slices.ContainsFunc(h.lateCame, func(l lateSamples) bool { return l.labels == key && l.mint <= x.Time && x.Time <= l.maxt })
	})
}

func times(samples []Sample) (out []int64) {
	for _, x := range samples {
		out = append(out, x.Time)
	}
	return out
}

// checkTier compares what downsampled data says of whole hours with the model,
// as far as policy keeps it and nothing of it was deleted. An hour of a replica is
// there as it was written, or in what was made of both. RELIABILITY C9
func (h *history) checkTier(s storeapi.Store, resolution int64) error {
	all, err := h.fetch(s, resolution)
	if err != nil {
		return err
	}
	have := map[string]map[int64]Window{}
	for key, g := range all {
		if have[key], err = hours(g); err != nil {
			return err
		}
		if err := h.wereWritten(g.labels, have[key]); err != nil {
			return fmt.Errorf("at %d s: %w", resolution/1000, err)
		}
	}
	for key, s := range h.model.series {
		one := map[int64]Window{}
		if h.replicaLabel {
			one = have[labels.NewBuilder(s.labels).Del("replica").Labels().String()]
		}
		if err := h.compareHours(s, have[key], one, resolution); err != nil {
			return fmt.Errorf("at %d s: %w", resolution/1000, err)
		}
	}
	return h.compareMerged(s, have, resolution)
}

// compareMerged compares the hours of what was made of replicas with what there
// still is of it as raw data, where nothing came late that the coarser tier could
// not be made anew with. Of replicas that differ another one may have been chosen:
// a coarser tier that was made of the blocks of a shorter window has begun anew with
// each of them, so that penalty may hold the other one back; and chain takes the move
// to another counter for a reset in raw data.
func (h *history) compareMerged(s storeapi.Store, have map[string]map[int64]Window, resolution int64) error {
	if !h.replicaLabel {
		return nil
	}
	raw, err := h.fetch(s, 0)
	if err != nil {
		return err
	}
	for key, g := range raw {
		if g.labels.Has("replica") || h.rawGoes() && h.oneCameLate(key) {
			continue
		}
		want, p := Windows(g.raw, hour), &place{have: have[key]}
		a, b := h.replicaHours(g.labels, "a"), h.replicaHours(g.labels, "b")
		all := maps.Clone(want)
		maps.Copy(all, have[key])
		for _, at := range sortedTimes(all) {
			if want[at].Count == 0 || h.cut(g.labels, at) { // expired as raw data, or deleted
				p.before = 0
				continue
			}
			var err error
			if a[at].Same(b[at]) {
				err = p.compare(&series{labels: g.labels}, want, at)
			} else {
				p.before = 0
				if have[key][at].Count > 0 || !h.heldBack(g.labels, sortedTimes(have[key]), at, byTheHour) {
					err = p.between(g.labels, at, a[at], b[at])
				}
			}
			if err != nil {
				return fmt.Errorf("at %d s, against raw data: %w", resolution/1000, err)
			}
		}
	}
	return nil
}

// wereWritten tells whether there was something, and is not deleted, in all the
// hours that there are of a series, of one replica or of what was made of both.
func (h *history) wereWritten(lset labels.Labels, have map[int64]Window) error {
	s := h.model.series[lset.String()]
	if s == nil {
		s = h.reference().series[lset.String()]
	}
	if s == nil {
		return fmt.Errorf("series %s was never written", lset)
	}
	written := Windows(s.samples, hour)
	for _, at := range sortedTimes(have) {
		if have[at].Count > 0 && written[at].Count == 0 {
			return fmt.Errorf("%s: hour from %s is %+v, and nothing is to be there", lset, when(at), have[at])
		}
	}
	return nil
}

// compareHours compares the hours of a series with what there is of it alone, and
// in one with its replica's. Of what came late where raw data is removed, something
// need be there.
func (h *history) compareHours(s *series, alone, one map[int64]Window, resolution int64) error {
	want := Windows(s.samples, hour)
	places := []*place{{have: alone}, {have: one}}
	for _, at := range sortedTimes(want) {
		for _, p := range places {
			if h.cutBetween(s.labels, p.before, at) {
				p.before = 0 // what it rose by in what was deleted counts at the end of it
			}
		}
		if keep := h.keeps(s.labels, resolution); keep > 0 && at < h.clock.ms()-keep || h.cut(s.labels, at) {
			places[0].before, places[1].before = 0, 0
			continue
		}
		found, late := h.merged(s.labels) && h.anyNear(s.labels, one, at), h.rawGoes() && h.cameLate(s.labels, at)
		for i, p := range places {
			if p.have[at].Count == 0 || i == 1 && h.merged(s.labels) {
				p.before = 0 // what it rose by meanwhile is told elsewhere
				continue
			}
			if found = true; late {
				p.before = 0
				continue
			}
			if err := p.compare(s, want, at); err != nil {
				return err
			}
		}
		if !found {
			return fmt.Errorf("%s: hour from %s is missing, want %+v", s.labels, when(at), want[at])
		}
	}
	return nil
}

// place is where hours of a series may be.
type place struct {
	have   map[int64]Window
	before int64 // the last hour that was compared; 0: none in this stretch
}

func (p *place) compare(s *series, want map[int64]Window, at int64) error {
	if !want[at].Same(p.have[at]) {
		return fmt.Errorf("%s: hour from %s is %+v, want %+v", s.labels, when(at), p.have[at], want[at])
	}
	from := p.before
	p.before = at
	if from == 0 || s.labels.Get("__name__") != "requests_total" {
		return nil
	}
	if rise, wanted := p.have[at].Last-p.have[from].Last, want[at].Last-want[from].Last; rise != wanted {
		return fmt.Errorf("%s: rises by %v from the hour of %s to that of %s, want %v", s.labels, rise, when(from), when(at), wanted)
	}
	return nil
}

// between checks that an hour is made of samples of two replicas. What does not fall
// between moves is held where the next replica is behind (docs/decisions/0001-deduplication.md).
func (p *place) between(lset labels.Labels, at int64, a, b Window) error {
	have, gauge := p.have[at], slices.Contains([]string{"queue", "temperature"}, lset.Get("__name__"))
	some := have.Count > 0 && have.Count <= a.Count+b.Count
	if !some || have.floats && gauge && (have.Min < min(a.Min, b.Min) || have.Max > max(a.Max, b.Max)) {
		return fmt.Errorf("%s: hour from %s is %+v, of replicas that have %+v and %+v", lset, when(at), have, a, b)
	}
	return nil
}

// replicaHours are the hours that were written of one replica of a series.
func (h *history) replicaHours(lset labels.Labels, replica string) map[int64]Window {
	s := h.model.series[labels.NewBuilder(lset).Set("replica", replica).Labels().String()]
	if s == nil {
		return nil
	}
	return Windows(s.samples, hour)
}

// anyNear tells whether there is something as near to an hour as deduplication
// bridges gaps.
func (h *history) anyNear(lset labels.Labels, have map[int64]Window, at int64) bool {
	for t := at - h.tolerance() - hour; t <= at+h.tolerance()+hour; t += hour {
		if have[t-t%hour].Count > 0 {
			return true
		}
	}
	// An hour of which something was deleted doesn't show, and what was left of it counted.
	there := map[int64]Window{}
	maps.Copy(there, have)
	for _, replica := range []string{"a", "b"} {
		for t, w := range h.replicaHours(lset, replica) {
			if h.cut(lset, t) {
				there[t] = w
			}
		}
	}
	return h.heldBack(lset, sortedTimes(there), at, byTheHour)
}

// byTheHour is how much longer a replica may seem to be held back where both the gap
// and its end are told by the hour.
const byTheHour = 3 * hour

// cut tells whether samples of an hour were deleted.
func (h *history) cut(lset labels.Labels, at int64) bool { return h.cutBetween(lset, at, at+hour) }

// cutBetween tells whether samples from one time to before another were deleted.
func (h *history) cutBetween(lset labels.Labels, from, to int64) bool {
	return slices.ContainsFunc(h.requests, func(r request) bool {
		return r.mint < to && from <= r.maxt && matches(lset, r.matchers)
	})
}

// cameLate tells whether samples of an hour came after their neighbours.
func (h *history) cameLate(lset labels.Labels, at int64) bool {
	key := lset.String()
	return slices.ContainsFunc(h.lateCame, func(l lateSamples) bool { return l.labels == key && l.mint < at+hour && at <= l.maxt })
}

// oneCameLate tells whether samples of one of the replicas of a series came late.
func (h *history) oneCameLate(key string) bool {
	return slices.ContainsFunc(h.lateCame, func(l lateSamples) bool { return l.one == key })
}

// rawGoes tells whether raw data is removed: what comes late then may find that its
// neighbours are there in coarser tiers alone.
func (h *history) rawGoes() bool { return h.raw > 0 || h.rule }

// hours makes windows of an hour of what a gateway has.
func hours(g *got) (map[int64]Window, error) {
	out := Windows(g.raw, hour)
	var counters []chunkenc.Iterator
	for _, c := range g.chunks {
		data := c.Raw
		if c.Aggr != nil {
			if err := aggregates(out, c.Aggr); err != nil {
				return nil, err
			}
			data = c.Aggr.Counter
		}
		if data.IsZero() {
			continue
		}
		chunk, err := data.Chunk()
		if err != nil {
			return nil, err
		}
		counters = append(counters, chunk.Iterator(nil))
	}
	it := downsample.NewCounter(counters)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		if t, v := it.AtT(), 0.0; typ == chunkenc.ValFloat {
			if _, v = it.At(); !math.IsNaN(v) {
				w := out[t-t%hour]
				w.Last = v
				out[t-t%hour] = w
			}
		}
	}
	return out, it.Err()
}

// aggregates adds what a downsampled chunk says to windows.
func aggregates(out map[int64]Window, c *storeapi.Aggregates) error {
	for agg, data := range map[storeapi.Aggregate]storeapi.Data{
		storeapi.AggregateCount: c.Count, storeapi.AggregateSum: c.Sum, storeapi.AggregateMin: c.Min, storeapi.AggregateMax: c.Max,
	} {
		if data.IsZero() {
			continue
		}
		samples, err := decode(data)
		if err != nil {
			return err
		}
		for _, x := range samples {
			start := x.Time - x.Time%hour
			out[start] = out[start].Join(aggregate(agg, x))
		}
	}
	return nil
}

// aggregate is the part of a window that one aggregate tells.
func aggregate(agg storeapi.Aggregate, x Sample) Window {
	switch hist := x.float(); {
	case agg == storeapi.AggregateCount:
		return Window{Count: x.Value}
	case agg == storeapi.AggregateSum && hist != nil:
		return Window{Observations: hist.Count, Observed: hist.Sum}
	case agg == storeapi.AggregateSum:
		return Window{Sum: x.Value}
	case agg == storeapi.AggregateMin:
		return Window{Min: x.Value, Max: x.Value, floats: true}
	}
	return Window{Min: x.Value, Max: x.Value, floats: true}
}

func sortedTimes(m map[int64]Window) (out []int64) {
	for t := range m {
		out = append(out, t)
	}
	slices.Sort(out)
	return out
}

var ofMinutes = regexp.MustCompile(`(\d)m([\]:])`)

// compareAnswers asks a querier over the gateway what the model answers, about
// the time that is still there raw.
func (h *history) compareAnswers(gateway storeapi.Store) {
	if h.replicaLabel && h.unlike {
		return
	}
	querier := startQuerier(h.T, []string{listen(h.T, storeapi.Services{Store: gateway})})
	from, now := dawn, h.clock.ms()
	for _, keep := range []int64{h.raw, h.ruleRaw} {
		if keep > 0 && (keep == h.raw || h.rule) {
			from = max(from, now-keep+day) // ranges of up to a day reach back
		}
	}
	m, ask := h.model, questions(h.rnd, from, now, 40)
	cluster, dedup := labels.MustNewMatcher(labels.MatchNotEqual, "cluster", "bad"), "false"
	if h.replicaLabel {
		m, cluster = h.reference(), labels.MustNewMatcher(labels.MatchEqual, "cluster", "same")
		dedup = "true"
	}
	ask = slices.DeleteFunc(ask, func(q question) bool { return !q.params.Has("query") })
	for _, q := range ask {
		q.params.Set("query", ofMinutes.ReplaceAllString(q.params.Get("query"), "${1}h$2"))
		restrict(h.T, q.params, cluster)
	}
	equal(h.T, m, querier, ask, dedup)
}

// forgotten waits until marked blocks are removed and delete requests done. Then
// a corrupt block is set aside, what has expired is gone, what is too large for
// one block was split, and nothing of what requests asked for is in the bucket: it shows
// to nobody who doesn't know of them. RELIABILITY C4, C7
func (h *history) forgotten() {
	for range 3 {
		h.clock.add(h.deleteDelay + hour)
		h.settle()
	}
	objects := h.memory.Objects()
	require.False(h, h.splits && !h.split, "nothing was to be split")
	for _, m := range h.metas() {
		if objects[block.Name(m.ULID, block.DeletionMarkFilename)] != nil {
			continue // by the last pass
		}
		if h.split && !h.splits && m.Thanos.Source == block.SourceCompactor {
			require.LessOrEqual(h, len(objects[block.Name(m.ULID, block.IndexFilename)]), splitAbove, "block %s was to be split", m.ULID)
		}
		if m.ULID == h.corrupt {
			require.Contains(h, objects, block.Name(m.ULID, block.NoCompactMarkFilename), "the corrupt block is set aside")
		}
		keep := map[int64]int64{0: h.raw, block.Resolution5m: h.five, block.Resolution1h: h.one}[m.Thanos.Downsample.Resolution]
		if keep > 0 && m.ULID != h.corrupt && m.MaxTime <= h.clock.ms()-keep && !h.waits(m) {
			require.Fail(h, "a block has expired", "%s\n%s", m.ULID, h.plan())
		}
	}
	requests, err := block.ListDeletes(context.Background(), h.memory)
	require.NoError(h, err)
	require.Len(h, requests, len(h.requests))
	for _, r := range requests {
		require.Equal(h, block.DeleteDone, r.State, "request %s", r.ID)
	}
	for name := range objects {
		if strings.HasPrefix(name, "firnline/deletes/") {
			require.NoError(h, h.memory.Delete(context.Background(), name))
		}
	}
	h.glance()
	h.tiers()
}

// waits tells whether a block is held until its window is complete, when the tier
// that outlives it is made. Raw data outlasts the two days that it waits for.
func (h *history) waits(m *block.Meta) bool {
	end := m.MinTime - m.MinTime%fortnite + fortnite
	return m.Resolution() == block.Resolution5m && h.clock.ms() < end+completeAfter
}

// metas are those of all blocks that are visible.
func (h *history) metas() (out []*block.Meta) {
	for name, data := range h.memory.Objects() {
		if id, rel, ok := block.SplitName(name); ok && rel == block.MetaFilename {
			m, err := block.ParseMeta(id, data)
			require.NoError(h, err)
			out = append(out, m)
		}
	}
	return out
}

// noteSplits looks for shards.
func (h *history) noteSplits() {
	for _, m := range h.metas() {
		ext, _, err := m.Extension()
		require.NoError(h, err)
		h.splits = h.splits || ext.Shard != nil
	}
}

func when(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000") }

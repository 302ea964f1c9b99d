package model

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact"
)

const (
	hour     = 60 * minute
	day      = 24 * hour
	fortnite = 14 * day
	dawn     = 1450 * fortnite // ms; where windows of all lengths begin
)

// settings are what a history is drawn with.
type settings struct {
	interval, span int64 // ms: between scrapes, of a shipped block
	dedup          string
	replicaLabel   bool // replicas are merged for good
	split          bool
	late           bool  // blocks and samples come late
	unlike         bool  // equal replicas may be merged to less than each had
	raw, five, one int64 // ms; retention, 0: for ever
	ruleRaw        int64 // of the series that the policy file speaks of
	ruleFive       int64 // 0: as for the others
	rule           bool
	deleteDelay    int64 // ms
	workers        int
	announced      bool  // shippers tell of their blocks; else listings must show them
	foreign        bool  // somebody else's compactor is at work on them, too
	rest           int64 // ms; how long a group is left alone for that
	copies         bool  // segments are copied within the bucket however small they are
}

func draw(rnd *rand.Rand) settings {
	pick := func(list ...int64) int64 { return list[rnd.IntN(len(list))] }
	s := settings{
		interval: pick(4, 9, 20, 40) * minute, span: pick(2, 8, 8, 16) * hour,
		dedup: []string{"firnline", "firnline", "chain", "penalty"}[rnd.IntN(4)], replicaLabel: rnd.IntN(2) == 0,
		split: rnd.IntN(3) == 0, late: rnd.IntN(3) > 0, deleteDelay: pick(30, 48, 72) * hour, workers: 1 + rnd.IntN(3), announced: rnd.IntN(2) == 0,
		raw: pick(0, 0, 3, 6) * day, five: pick(0, 0, 12) * day, one: pick(0, 0, 25) * day, rule: rnd.IntN(2) == 0, ruleRaw: pick(2, 4) * day,
		ruleFive: pick(0, 10, 11) * day, foreign: rnd.IntN(3) == 0, rest: pick(0, 1) * day,
	}
	s.unlike = s.late && s.dedup != "chain"
	s.copies = s.deleteDelay != 48*hour // not drawn: seeds that were chosen stay what they are
	return s
}

// splitAbove is the size of an index above which groups are split, if they are.
const splitAbove = 16 << 10

// ruled are the series that the policy file speaks of.
const ruled = "pod-0"

// keeps tells how long policy keeps a series at a resolution, ms; 0: for ever.
func (s settings) keeps(lset labels.Labels, resolution int64) int64 {
	switch {
	case resolution == block.Resolution1h:
		return s.one
	case resolution == block.Resolution5m && s.rule && s.ruleFive > 0 && lset.Get("pod") == ruled:
		return s.ruleFive
	case resolution == block.Resolution5m:
		return s.five
	case s.rule && lset.Get("pod") == ruled:
		return s.ruleRaw
	}
	return s.raw
}

// history is a bucket over some weeks: what is shipped to it, what several
// compactors make of it, and what must be readable. Cluster "same" has replicas
// with equal samples, those of "own" scrape each for itself, and one block of
// "bad" is corrupt.
//
// Workers run at once, so no two runs of a seed go alike. What is written, and when
// who is to die, is drawn apart from what they do, so that it stays nearly the same.
type history struct {
	*testing.T
	settings
	rnd      *rand.Rand // of what is asked; writers, workers and readers have their own
	reading  *rand.Rand
	story    story
	log      *slog.Logger
	memory   *bucket.Memory
	clock    *clock
	dir      string
	policy   string // file
	model    *Model
	plain    *Model // without replica labels; nil: to be made
	writers  []*writer
	workers  []*worker
	requests []request
	shipped  int
	lateCame []lateSamples
	corrupt  ulid.ULID
	splits   bool // there were shards
}

// request is a delete request that was made.
type request struct {
	id         ulid.ULID
	created    time.Time
	matchers   []*labels.Matcher
	mint, maxt int64
}

// lateSamples are those of a series that came after their neighbours.
type lateSamples struct {
	labels     string
	one        string // the same without the replica's
	mint, maxt int64
}

// writer is one Prometheus with its shipper.
type writer struct {
	rnd     *rand.Rand
	labels  labels.Labels // external
	targets []*source
	twin    bool // has the samples of the writer before it
	xor2    bool
	written []batch
	next    int64   // where the next block begins
	held    []batch // not shipped yet
}

// batch is what becomes one block.
type batch struct {
	from, to int64
	series   []blocktest.Series
	late     bool
	held     int  // passes that it comes late by
	again    bool // it comes twice, as another block
	joined   int  // blocks that somebody else's compactor made it of
}

func newHistory(t *testing.T, rnd *rand.Rand) *history {
	h := &history{T: t, settings: draw(rnd), rnd: rnd, reading: fork(rnd), memory: bucket.NewMemory(), clock: &clock{t: dawn}, dir: t.TempDir(), model: New()}
	h.log = h.logger("history")
	t.Cleanup(h.tell)
	h.memory.SetClock(h.clock.now)
	h.writePolicy()
	for _, cluster := range []string{"same", "own", "bad"} {
		seed := rnd.Uint64()
		targets := h.targets(seed)
		for _, name := range []string{"a", "b"} {
			if cluster == "own" {
				targets = h.targets(seed) // the same series, each with its own samples
			}
			h.writers = append(h.writers, &writer{
				rnd: fork(rnd), labels: labels.FromStrings("cluster", cluster, "replica", name), targets: targets,
				twin: cluster == "same" && name == "b", xor2: rnd.IntN(4) == 0, next: dawn,
			})
			if cluster == "bad" {
				break
			}
		}
	}
	for n := range h.settings.workers {
		h.workers = append(h.workers, &worker{history: h, rnd: fork(rnd), name: n, dir: t.TempDir()})
	}
	t.Logf("%+v", h.settings)
	return h
}

// fork returns a source of randomness that draws its own.
func fork(rnd *rand.Rand) *rand.Rand { return rand.New(rand.NewPCG(rnd.Uint64(), 0)) }

// targets makes up what one scrapes: of one seed the same series.
func (h *history) targets(seed uint64) (out []*source) {
	rnd, sets := rand.New(rand.NewPCG(seed, 0)), 1
	if h.split {
		sets = 3
	}
	for n := range sets {
		for _, s := range sources(rnd) {
			s.labels = labels.NewBuilder(s.labels).Set("set", fmt.Sprint(n)).Labels()
			out = append(out, s)
		}
	}
	return out
}

func (h *history) writePolicy() {
	if !h.rule {
		return
	}
	h.policy = filepath.Join(h.dir, "policy.yaml")
	text := fmt.Sprintf("rules:\n- selectors: ['{pod=%q}']\n  raw: %dh\n", ruled, h.ruleRaw/hour)
	if h.ruleFive > 0 {
		text += fmt.Sprintf("  5m: %dh\n", h.ruleFive/hour)
	}
	require.NoError(h, os.WriteFile(h.policy, []byte(text), 0o600))
}

// pass lets time pass: samples are scraped, blocks shipped, in time or late.
func (h *history) pass(length int64) {
	h.clock.add(length)
	h.log.Info("time passes", "hours", length/hour)
	for i, w := range h.writers {
		for w.next+h.span <= h.clock.ms() {
			var b batch
			if w.twin {
				b = h.writers[i-1].written[len(w.written)]
			} else {
				b = h.scrape(w, w.next, w.next+h.span)
			}
			w.written = append(w.written, b)
			w.held = append(w.held, h.fate(w, b))
			w.next += h.span
		}
		// Of equal replicas that are merged none gets samples that the other hasn't.
		rnd := fork(h.rnd)
		if h.late && !(h.replicaLabel && w.labels.Get("cluster") == "same") && rnd.IntN(3) == 0 {
			w.held = append(w.held, h.fate(w, h.between(w, rnd)))
		}
		h.shipSome(w)
	}
	h.plain = nil
}

// fate draws when a batch is shipped, and how often.
func (h *history) fate(w *writer, b batch) batch {
	b.held, b.again = 0, w.rnd.IntN(20) == 0
	for h.late && w.rnd.IntN(6) == 0 {
		b.held++
	}
	return b
}

// scrape makes up the samples of a block.
func (h *history) scrape(w *writer, from, to int64) batch {
	b := batch{from: from, to: to}
	jitter := w.rnd.Int64N(h.interval)
	for _, s := range w.targets {
		var list []blocktest.Sample
		for t := from + jitter; t < to; t += h.interval {
			if sample, ok := s.scrape(w.rnd, t); ok {
				list = append(list, stored(sample))
			}
		}
		if len(list) > 0 {
			b.series = append(b.series, blocktest.Series{Labels: s.labels, Samples: list})
		}
	}
	return b
}

// stored rounds floats, so that they add up to the same in any order.
func stored(s Sample) blocktest.Sample {
	if !math.IsNaN(s.Value) { // stale markers keep their bits
		s.Value = math.Round(s.Value*4) / 4
	}
	return blocktest.Sample{T: s.Time, F: s.Value, H: s.Hist, FH: s.FloatHist}
}

// between makes up late samples that lie between those that are there.
func (h *history) between(w *writer, rnd *rand.Rand) batch {
	var gauges []*source
	for _, s := range w.targets {
		if s.labels.Get("__name__") == "queue" {
			gauges = append(gauges, s)
		}
	}
	s, next := gauges[rnd.IntN(len(gauges))], gauge()
	from := h.clock.ms() - 2*hour - rnd.Int64N(3*day)
	from -= from % (2 * hour)
	b := batch{from: from, to: from + 2*hour, late: true}
	var list []blocktest.Sample
	for t := from + 1 + rnd.Int64N(h.interval); t < b.to; t += h.interval/2 + 17 {
		sample := next(rnd)
		sample.Time = t
		list = append(list, stored(sample))
	}
	b.series = []blocktest.Series{{Labels: s.labels, Samples: list}}
	return b
}

// shipSome ships what a writer holds, but for what comes late.
func (h *history) shipSome(w *writer) {
	var held []batch
	if h.foreign && w.rnd.IntN(3) == 0 {
		w.held = join(w.held)
	}
	for _, b := range w.held {
		if h.late && b.held > 0 {
			b.late = true
			b.held--
			held = append(held, b)
			continue
		}
		h.ship(w, b)
		if b.again {
			h.ship(w, b) // once more, as another block
		}
	}
	w.held = held
	w.rnd.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
}

// join makes one batch of those that are behind one another in two days, as Thanos'
// compactor does with blocks that nobody else has seen by then.
func join(held []batch) (out []batch) {
	slices.SortStableFunc(held, func(a, b batch) int { return cmp.Compare(a.from, b.from) })
	for _, b := range held {
		last := len(out) - 1
		if last < 0 || out[last].to != b.from || out[last].from/(2*day) != (b.to-1)/(2*day) {
			out = append(out, b)
			continue
		}
		out[last] = out[last].with(b)
	}
	return out
}

// with is a batch and the one behind it.
func (b batch) with(next batch) batch {
	out := batch{from: b.from, to: next.to, late: b.late || next.late, held: max(b.held, next.held), joined: max(b.joined, 1) + 1}
	out.series = slices.Clone(b.series)
	for _, s := range next.series {
		at := slices.IndexFunc(out.series, func(have blocktest.Series) bool { return labels.Equal(have.Labels, s.Labels) })
		if at < 0 {
			out.series = append(out.series, s)
			continue
		}
		out.series[at].Samples = slices.Concat(out.series[at].Samples, s.Samples)
	}
	return out
}

// ship makes a block of samples and puts it into the bucket.
func (h *history) ship(w *writer, b batch) {
	b = h.withoutDone(w, b)
	if len(b.series) == 0 {
		return
	}
	h.shipped++
	id := ulid.ULID{}
	require.NoError(h, id.SetTime(uint64(h.clock.ms())))
	binary.BigEndian.PutUint64(id[8:], uint64(h.shipped))
	opts := blocktest.Options{ID: id, MinTime: b.from, MaxTime: b.to, Source: block.SourceSidecar, XOR2: w.xor2}
	if b.joined > 0 {
		opts.Source, opts.Level, opts.XOR2 = block.SourceCompactor, 2, false
		for n := range b.joined {
			source := id
			source[6] = byte(n + 1)
			opts.Sources = append(opts.Sources, source)
		}
	}
	m := blocktest.Write(h, h.dir, b.series, w.labels, opts)
	path := filepath.Join(h.dir, id.String())
	h.log.Info("ships", "block", id, "of", w.labels, "from", when(b.from), "to", when(b.to), "late", b.late, "joined", b.joined)
	up := block.Uploader{Bucket: h.memory, Now: h.clock.now}
	sent, err := up.Upload(context.Background(), path, &m)
	require.NoError(h, err)
	require.NoError(h, os.RemoveAll(path))
	if h.announced {
		require.NoError(h, block.Announce(context.Background(), h.memory, block.Change{Block: id, Meta: sent.Meta}))
	}
	if w.labels.Get("cluster") == "bad" {
		h.spoil(w, id)
		return
	}
	h.note(w, b)
}

// note tells the model what was shipped, without what is to be deleted.
func (h *history) note(w *writer, b batch) {
	for _, s := range b.series {
		var list []Sample
		for _, x := range s.Samples {
			list = append(list, Sample{Time: x.T, Value: x.F, Hist: x.H, FloatHist: x.FH})
		}
		full := withExternal(s.Labels, w.labels)
		for _, r := range h.requests {
			if matches(full, r.matchers) {
				list = slices.DeleteFunc(list, func(x Sample) bool { return r.mint <= x.Time && x.Time <= r.maxt })
			}
		}
		h.model.Add(w.labels, s.Labels, list...)
		if b.late {
			h.lateCame = append(h.lateCame, lateSamples{full.String(), labels.NewBuilder(full).Del("replica").Labels().String(), b.from, b.to - 1})
		}
	}
	h.plain = nil
}

// graceForLate is how long after a delete request a block may come with samples
// that it speaks of; the compactor waits for longer.
const graceForLate = 6 * time.Hour

// withoutDone leaves samples out that requests have asked for long ago: who
// ships them later than that brings them back.
func (h *history) withoutDone(w *writer, b batch) batch {
	out := b
	out.series = nil
	for _, s := range b.series {
		list := slices.Clone(s.Samples)
		for _, r := range h.requests {
			if h.clock.now().Sub(r.created) > graceForLate && matches(withExternal(s.Labels, w.labels), r.matchers) {
				list = slices.DeleteFunc(list, func(x blocktest.Sample) bool { return r.mint <= x.T && x.T <= r.maxt })
			}
		}
		if len(list) > 0 {
			out.series = append(out.series, blocktest.Series{Labels: s.Labels, Samples: list})
		}
	}
	return out
}

// spoil flips a byte of one block.
func (h *history) spoil(w *writer, id ulid.ULID) {
	if !h.corrupt.IsZero() || w.rnd.IntN(3) > 0 {
		return
	}
	h.corrupt = id
	name := block.Name(id, []string{block.IndexFilename, "chunks/000001"}[w.rnd.IntN(2)])
	data := bytes.Clone(h.memory.Objects()[name])
	data[len(data)/2] ^= 0xff
	require.NoError(h, h.memory.Upload(context.Background(), name, bytes.NewReader(data)))
}

var deletable = []string{
	`{__name__="queue",cluster="same"}`, `requests_total{cluster="own",pod="pod-0"}`, `{cluster=~"same|own",pod="pod-1"}`,
	`latency{cluster!="bad",zone=~".+"}`, `{__name__="mixed",cluster="own"}`,
}

// request asks for some series to be deleted, for some of the time so far.
func (h *history) request() {
	sel := deletable[h.rnd.IntN(len(deletable))]
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(sel)
	require.NoError(h, err)
	now := h.clock.ms()
	mint := dawn + h.rnd.Int64N(now-dawn)
	r, err := block.CreateDelete(context.Background(), h.memory, block.DeleteRequest{
		Selectors: []string{sel}, MinTime: mint, MaxTime: mint + h.rnd.Int64N(2*day), ID: ulid.MustNew(uint64(now), bytes.NewReader(append(make([]byte, 9), byte(len(h.requests))))),
	})
	require.NoError(h, err)
	h.log.Info("asks to delete", "series", sel, "from", when(r.MinTime), "to", when(r.MaxTime), "request", r.ID)
	h.requests = append(h.requests, request{r.ID, h.clock.now(), ms, r.MinTime, r.MaxTime})
	h.model.Delete(r.MinTime, r.MaxTime, ms...)
	h.plain = nil
}

// clock is a time that the test moves.
type clock struct {
	mu sync.Mutex
	t  int64
}

func (c *clock) ms() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

// now is a millisecond later each time, so that what came after what can be told.
func (c *clock) now() time.Time {
	c.add(1)
	return time.UnixMilli(c.ms()).UTC()
}

func (c *clock) add(ms int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t += ms
}

// worker is a compactor's place: its data folder, and the process in it.
type worker struct {
	*history
	rnd     *rand.Rand
	name    int
	dir     string
	process *process
	*compact.Compactor
}

// start begins a process, after the end of the one before.
func (w *worker) start(f *process) {
	w.stop()
	if w.rnd.IntN(3) == 0 {
		w.dir = w.TempDir()
	}
	c, err := compact.New(w.config(), compact.Parts{
		Bucket: bucket.WithFaults(&flaky{w.memory, f.faults, w.announced}, f.hook), Fault: f.hook, Log: w.logger(fmt.Sprint("worker ", w.name)), Metrics: prometheus.NewRegistry(),
		Now: func() time.Time { return w.clock.now().Add(time.Duration(f.skew) * time.Millisecond) }, Rand: func() float64 { return 0 },
	})
	require.NoError(w, err)
	w.process, w.Compactor = f, c
}

func (w *worker) config() (cfg compact.Config) {
	cfg.RegisterFlags(flag.NewFlagSet("compact", flag.ContinueOnError))
	cfg.DataDir, cfg.Concurrency = w.dir, 1+w.name%2
	cfg.DeleteDelay = ms(w.deleteDelay)
	cfg.Retention.Raw, cfg.Retention.FiveMinutes, cfg.Retention.OneHour = ms(w.raw), ms(w.five), ms(w.one)
	cfg.Retention.PolicyFile = w.policy
	cfg.DedupFunc = w.dedup
	cfg.ForeignWindow = ms(w.rest)
	if w.replicaLabel {
		require.NoError(w, cfg.ReplicaLabels.Set("replica"))
	}
	if w.split {
		cfg.MaxIndexBytes = splitAbove
	}
	if w.copies {
		cfg.CopyMinSize = 1
	}
	if !w.announced {
		cfg.Blocks.ListInterval = model.Duration(time.Second)
	}
	return cfg
}

func (w *worker) stop() {
	if w.Compactor != nil {
		require.NoError(w, w.Compactor.Close())
	}
	w.Compactor = nil
}

func ms(n int64) model.Duration { return model.Duration(time.Duration(n) * time.Millisecond) }

// process is what may happen to a compactor: requests fail, it is killed, after
// which it reaches nothing any more, or it stands still for a while.
type process struct {
	faults *faults
	skew   int64 // ms; by how much its clock is ahead

	mu             sync.Mutex
	calls          int
	dieAt, pauseAt int // number of the call; 0: never
	dead           bool
	paused, resume chan struct{}
}

var errDead = errors.New("the process is dead")

func (p *process) hook(ctx context.Context, point, object string) error {
	p.mu.Lock()
	p.calls++
	if p.calls == p.dieAt {
		p.dead = true
	}
	pause, dead := p.calls == p.pauseAt, p.dead
	p.mu.Unlock()
	if dead {
		return errDead
	}
	if pause {
		close(p.paused)
		<-p.resume
	}
	if err := p.faults.hook(ctx, point, object); err != nil {
		return fmt.Errorf("%w: %w", err, kinds[p.faults.below(len(kinds))])
	}
	return nil
}

// kinds are what faults of a bucket come as, of which some mean more elsewhere. How
// answers of providers become these is tested where that is done.
var kinds = []error{
	errors.New("503 Slow Down"), errors.New("409 OperationAborted"), bucket.ErrTimeout, context.DeadlineExceeded, context.Canceled,
	io.ErrUnexpectedEOF, fs.ErrPermission,
}

func (p *process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

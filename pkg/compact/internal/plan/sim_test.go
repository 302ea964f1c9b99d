package plan_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
	"github.com/firnline/firnline/pkg/compact/internal/policy"
)

const (
	hour = int64(time.Hour / time.Millisecond)
	day  = 24 * hour
)

var resolutions = []int64{block.ResolutionRaw, block.Resolution5m, block.Resolution1h}

func defaultConfig() plan.Config {
	return plan.Config{
		Ranges: []int64{2 * hour, 8 * hour, 2 * day, 14 * day}, Downsample: true, Window5m: 2 * day, Window1h: 14 * day,
		SettleDelay: 12 * hour, DeleteDelay: 48 * time.Hour, PartialDelay: 48 * time.Hour, MaxInputs: 200, ForeignWindow: 14 * 24 * time.Hour,
	}
}

// cells is the model of a block's content: sixteen series, a bit each. Series n
// is {k="<n>",ns="dev" or "prod"}: every odd one is of dev.
type cells uint16

const (
	allCells = cells(0xffff)
	devCells = cells(0xaaaa)
)

func seriesOf(n int) labels.Labels {
	return labels.FromStrings("k", fmt.Sprintf("%02d", n), "ns", []string{"prod", "dev"}[n%2])
}

func cellsIf(keep func(labels.Labels) bool) cells {
	var out cells
	for n := range 16 {
		if keep(seriesOf(n)) {
			out |= 1 << n
		}
	}
	return out
}

// sim is a bucket and a worker in memory: it does what a plan says and keeps
// account of which series of which block of level 1 is where.
type sim struct {
	t   testing.TB
	cfg plan.Config
	in  plan.Input
	now int64 // ms

	content map[ulid.ULID]map[ulid.ULID]cells // block → source → series
	born    map[ulid.ULID]*block.Meta         // all of level 1 there ever were
	deleted map[ulid.ULID]cells               // by source: what requests asked to go
	serial  uint64
	written int      // outputs of jobs
	log     []string // what was done, for failures
}

func newSim(t testing.TB, cfg plan.Config) *sim {
	return &sim{
		t: t, cfg: cfg,
		in: plan.Input{
			Metas: map[ulid.ULID]*block.Meta{}, Marks: map[ulid.ULID]block.Marks{}, Partial: map[ulid.ULID]time.Time{},
			Problems: map[ulid.ULID]error{}, Unmatched: map[string]bool{}, Failed: map[string]time.Time{},
		},
		content: map[ulid.ULID]map[ulid.ULID]cells{}, born: map[ulid.ULID]*block.Meta{}, deleted: map[ulid.ULID]cells{},
	}
}

func (s *sim) clock() time.Time { return time.UnixMilli(s.now).UTC() }

// upload puts a block of level 1 into the bucket.
func (s *sim) upload(from, to int64, indexBytes int64, external ...string) *block.Meta {
	s.serial++
	id := ulid.ULID{}
	require.NoError(s.t, id.SetTime(uint64(max(s.now, 0))))
	binary.BigEndian.PutUint64(id[8:], s.serial)
	m := &block.Meta{ULID: id, MinTime: from, MaxTime: to, Version: 1, Compaction: block.Compaction{Level: 1, Sources: []ulid.ULID{id}}}
	m.Thanos = block.Thanos{Labels: labels.FromStrings(external...).Map(), Source: block.SourceSidecar, UploadTime: s.clock()}
	m.Thanos.Files = files(indexBytes)
	s.in.Metas[id], s.born[id] = m, m
	s.content[id] = map[ulid.ULID]cells{id: allCells}
	for _, d := range s.in.Deletes {
		if d.State == block.DeletePending {
			s.deleted[id] |= deletedCells(d, m)
		}
	}
	return m
}

func files(indexBytes int64) []block.File {
	return []block.File{{RelPath: "chunks/000001", SizeBytes: 10 * indexBytes}, {RelPath: "index", SizeBytes: indexBytes}}
}

func (s *sim) plan() plan.Plan { return plan.Make(s.cfg, s.in, s.clock()) }

// ready tells whether a worker would begin the job: its inputs are there, unmarked.
func (s *sim) ready(j plan.Job) bool {
	for _, m := range j.Inputs {
		if s.in.Metas[m.ULID] == nil || s.in.Marks[m.ULID].Deletion != nil {
			return false
		}
	}
	for _, o := range j.Outputs {
		for _, other := range o.Others {
			if s.in.Metas[other] == nil {
				return false
			}
		}
	}
	return true
}

// do carries a job out; it is killed before its step number stop.
func (s *sim) do(j plan.Job, stop int) bool {
	if !s.ready(j) {
		return false
	}
	for _, o := range j.Outputs {
		if stop--; stop < 0 {
			return false
		}
		s.write(j, o)
	}
	if !j.Replaces {
		return true
	}
	for _, m := range j.Inputs {
		if stop--; stop < 0 {
			return false
		}
		s.mark(m.ULID)
	}
	return true
}

// write makes one result: what the inputs have, within the shard, without what is
// to go.
func (s *sim) write(j plan.Job, o plan.Output) {
	m := *o.Meta
	ext, ok, err := m.Extension()
	require.NoError(s.t, err)
	require.True(s.t, ok)
	if o.FindBounds {
		ext.Shard.From, ext.Shard.To = cutEvenly(ext.Shard)
		require.NoError(s.t, m.SetExtension(ext))
	}
	external := m.Labels()
	keep := cellsIf(func(lset labels.Labels) bool {
		full := labels.NewBuilder(lset)
		external.Range(func(l labels.Label) { full.Set(l.Name, l.Value) })
		return ext.Shard.Contains(lset) && !slices.ContainsFunc(j.Expired, func(c policy.Class) bool { return c.Matches(full.Labels()) })
	})
	content, size := map[ulid.ULID]cells{}, int64(0)
	for _, in := range j.Inputs {
		for source, has := range s.content[in.ULID] {
			for _, d := range j.Deletes {
				has &^= deletedCells(d, s.born[source])
			}
			if has &= keep; has != 0 {
				content[source] |= has
			}
		}
		size += in.Thanos.Files[1].SizeBytes
	}
	if len(content) == 0 {
		s.in.Unmatched[plan.VoidKey(m.ULID)] = true
		if m.Resolution() == j.Resolution || j.Kind == plan.Split {
			return
		}
		for _, in := range j.Inputs {
			s.in.Unmatched[plan.EmptyKey(in.ULID, m.Resolution())] = true
		}
		return
	}
	if ext.Shard != nil && j.Kind == plan.Split {
		size /= int64(ext.Shard.Count)
	}
	m.Thanos.Files = files(max(1, size*3/4))
	m.Thanos.UploadTime = s.clock()
	if old := s.content[m.ULID]; old != nil && s.in.Metas[m.ULID] != nil {
		require.Equal(s.t, old, content, "a second worker wrote %s otherwise (%s)", m.ULID, j.Key)
	}
	s.in.Metas[m.ULID], s.content[m.ULID] = &m, content
	if o.NoCompact {
		marks := s.in.Marks[m.ULID]
		marks.NoCompact = &block.NoCompactMark{ID: m.ULID, Details: plan.DetailsShard, Reason: block.ReasonManual}
		s.in.Marks[m.ULID] = marks
	}
	s.written++
	s.note("wrote %s: %s %s, res %d (%s)", m.ULID, j.Kind, j.Key, m.Resolution(), j.Why)
}

func (s *sim) note(format string, args ...any) {
	s.log = append(s.log, s.clock().Format("02T15:04 ")+fmt.Sprintf(format, args...))
}

// cutEvenly stands for the worker's quantiles.
func cutEvenly(sh *block.Shard) (from, to labels.Labels) {
	in := cellsIf(sh2(*sh).Contains)
	var series []int
	for n := range 16 {
		if in&(1<<n) != 0 {
			series = append(series, n)
		}
	}
	if len(series) == 0 {
		series = []int{0}
	}
	edge := func(i int) labels.Labels { // never the same twice, however few series there are
		b := labels.NewBuilder(seriesOf(series[i*len(series)/sh.Count]))
		return b.Set("z", fmt.Sprintf("%03d", i)).Labels()
	}
	from, to = sh.From, sh.To
	if sh.Index > 0 {
		from = edge(sh.Index)
	}
	if sh.Index < sh.Count-1 {
		to = edge(sh.Index + 1)
	}
	return from, to
}

func sh2(s block.Shard) *block.Shard { return &s }

func deletedCells(d *block.DeleteRequest, source *block.Meta) cells {
	if source.MinTime < d.MinTime || d.MaxTime < source.MaxTime-1 {
		return 0 // requests of these tests take blocks of level 1 whole or not at all
	}
	var out cells
	for _, sel := range d.Selectors {
		ms, err := policy.ParseSelector(sel)
		if err != nil {
			panic(err)
		}
		out |= cellsIf(func(lset labels.Labels) bool {
			for _, m := range ms {
				v := lset.Get(m.Name)
				if e, ok := source.Thanos.Labels[m.Name]; ok {
					v = e
				}
				if !m.Matches(v) {
					return false
				}
			}
			return true
		})
	}
	return out
}

func (s *sim) mark(id ulid.ULID) {
	marks := s.in.Marks[id]
	if s.in.Metas[id] == nil || marks.Deletion != nil {
		return
	}
	s.note("marked %s", id)
	marks.Deletion = &block.DeletionMark{ID: id, DeletionTime: s.now / 1000}
	s.in.Marks[id] = marks
}

// collect marks garbage, if the coverers are there and unmarked, as a worker
// makes sure.
func (s *sim) collect(marks []plan.Mark) {
	for _, m := range marks {
		ok := true
		for _, by := range append([]ulid.ULID{m.CoveredBy}, m.Shards...) {
			ok = ok && s.in.Metas[by] != nil && s.in.Marks[by].Deletion == nil
		}
		if ok {
			s.mark(m.Block)
		}
	}
}

func (s *sim) remove(ids []ulid.ULID) {
	for _, id := range ids {
		if m := s.in.Marks[id].Deletion; m != nil && s.now-m.DeletionTime*1000 >= s.cfg.DeleteDelay.Milliseconds() {
			delete(s.in.Metas, id)
			delete(s.in.Marks, id)
			delete(s.content, id)
		}
	}
}

// clean notes which requests blocks turned out not to need: the worker writes
// these blocks all the same here, so there is nothing to note but the end.
func (s *sim) finish(ids []ulid.ULID) {
	for _, d := range s.in.Deletes {
		if !slices.Contains(ids, d.ID) {
			continue
		}
		d.State = block.DeleteDone
		for id, content := range s.content {
			for source, has := range content {
				require.Zero(s.t, has&deletedCells(d, s.born[source]), "request %s is done, and block %s has it still", d.ID, id)
			}
		}
	}
}

// pass does all of a plan.
func (s *sim) pass(p plan.Plan) {
	for _, j := range p.Jobs {
		s.do(j, 1<<20)
	}
	s.collect(p.Garbage)
	for _, m := range p.Expired {
		s.mark(m.Block)
	}
	s.remove(p.Remove)
	s.finish(p.DeletesDone)
}

// settle goes on until there is nothing to do, and fails if that does not come.
func (s *sim) settle(passes int) {
	for range passes {
		p := s.plan()
		if len(p.Jobs)+len(p.Garbage)+len(p.Expired)+len(p.Remove)+len(p.DeletesDone) == 0 {
			return
		}
		s.pass(p)
		s.check()
	}
	s.t.Fatalf("no end of work after %d passes:\n%s", passes, plan.Format(s.plan(), 100))
}

// check holds the bucket to RELIABILITY P3 and P5: what no policy wants gone is
// in a live block of its tier, or of a finer one; for readers that go by marks,
// for those that don't yet, and after either has hidden duplicates.
func (s *sim) check() {
	live := map[ulid.ULID]*block.Meta{}
	for id, m := range s.in.Metas {
		if s.in.Marks[id].Deletion == nil {
			live[id] = m
		}
	}
	for name, view := range map[string]map[ulid.ULID]*block.Meta{"unmarked": live, "all": s.in.Metas} {
		visible := maps.Clone(view)
		for _, id := range block.Duplicates(view) {
			delete(visible, id)
		}
		s.checkView(name, visible)
	}
}

func (s *sim) checkView(name string, view map[ulid.ULID]*block.Meta) {
	has := map[int64]map[ulid.ULID]cells{}
	for _, r := range resolutions {
		has[r] = map[ulid.ULID]cells{}
	}
	for id, m := range view {
		for source, c := range s.content[id] {
			has[m.Resolution()][source] |= c
		}
	}
	for source, m := range s.born {
		there := cells(0)
		for _, r := range resolutions {
			there |= has[r][source]
			if want := s.wanted(m, r) &^ s.deleted[source]; want&^there != 0 {
				s.t.Fatalf("%s blocks: of source %s, %s to %s, series %016b are in no tier up to %d at %s\n%s",
					name, source, time.UnixMilli(m.MinTime).UTC(), time.UnixMilli(m.MaxTime).UTC(), want&^there, r, s.clock(), s.dump(source))
			}
		}
	}
}

// wanted are the series of a source that retention keeps at a resolution. The
// policies of these tests go by ns alone.
func (s *sim) wanted(m *block.Meta, resolution int64) cells {
	if resolution > 0 && !s.cfg.Downsample {
		return 0
	}
	if s.cfg.Policy == nil {
		return allCells
	}
	var out cells
	for ns, series := range []cells{allCells &^ devCells, devCells} {
		keep := s.cfg.Policy.For(seriesOf(ns), resolution)
		if keep == 0 || m.MaxTime+keep.Milliseconds() >= s.now {
			out |= series
		}
	}
	return out
}

func (s *sim) dump(source ulid.ULID) string {
	var out []string
	for id, m := range s.in.Metas {
		if s.content[id][source] == 0 && source != (ulid.ULID{}) {
			continue
		}
		out = append(out, fmt.Sprintf("%013d-%013d %s res %d level %d marked %v series %016b ext %s sources %v", m.MinTime, m.MaxTime, id, m.Resolution(), m.Compaction.Level,
			s.in.Marks[id].Deletion != nil, s.content[id][source], m.Thanos.Extensions, len(m.Compaction.Sources)))
	}
	slices.Sort(out)
	for _, line := range s.log { // of the blocks in question
		if slices.ContainsFunc(out, func(b string) bool { return strings.Contains(b, strings.TrimSuffix(strings.Fields(line)[2], ":")) }) {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// shuffled gives Make the same blocks in maps that were filled in another order.
func (s *sim) shuffled(rnd *rand.Rand) plan.Input {
	ids := slices.Collect(maps.Keys(s.in.Metas))
	rnd.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	in := s.in
	in.Metas, in.Marks = map[ulid.ULID]*block.Meta{}, map[ulid.ULID]block.Marks{}
	for _, id := range ids {
		in.Metas[id] = s.in.Metas[id]
		if m, ok := s.in.Marks[id]; ok {
			in.Marks[id] = m
		}
	}
	in.Deletes = slices.Clone(s.in.Deletes)
	rnd.Shuffle(len(in.Deletes), func(i, j int) { in.Deletes[i], in.Deletes[j] = in.Deletes[j], in.Deletes[i] })
	return in
}

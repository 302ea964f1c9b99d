package plan_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
	"github.com/firnline/firnline/pkg/compact/internal/policy"
)

// In golden files a bucket is kept from one directive to the next.
//
//	config [dedup=replica] [max-inputs=n] [max-index=n] [downsample=off] [raw=…] [5m=…] [1h=…] [foreign=…]
//	       begins a new, empty bucket; the input is a policy file
//	blocks the input has a block a line: "<name> <from>-<to>" in hours, and
//	       src=a,b level= res=5m labels=k:v,k:v idx= from=<source> up=<hour> ours shard=<split>/<i>-<n>@<k>..<k>
//	       parents=a,b shard=of:<split>/… (fresh from the split of these)
//	       within=<split>/<i>-<n>@<k>..<k> (what the shard was split from) thinned
//	       marked=<hour> no-compact=<details> no-downsample partial=<hour> broken=<text> ext=<json>
//	delete a request: "<name> <selector> <from>-<to>" in hours
//	plan now=<hour>   prints what would be done
//	apply now=<hour>  does it, until the next plan
//
// Results get names as they are first seen: r1, r2, …
type golden struct {
	*sim
	names map[ulid.ULID]string
	ids   map[string]ulid.ULID
	made  int
}

func TestPlan(t *testing.T) {
	datadriven.Walk(t, "testdata/plan", func(t *testing.T, path string) {
		g := &golden{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "config":
				g.config(t, d)
				return ""
			case "blocks":
				for line := range strings.Lines(d.Input) {
					g.block(t, strings.Fields(line))
				}
				return ""
			case "delete":
				g.delete(t, strings.Fields(d.Input))
				return ""
			case "plan":
				g.at(t, d)
				return g.format(g.plan())
			case "apply":
				g.at(t, d)
				g.format(g.plan())
				g.pass(g.plan())
				return ""
			}
			t.Fatalf("unknown command %q", d.Cmd)
			return ""
		})
	})
}

func (g *golden) config(t *testing.T, d *datadriven.TestData) {
	cfg := defaultConfig()
	cfg.SettleDelay = 4 * hour
	tiers := policy.Tiers{}
	for _, a := range d.CmdArgs {
		v := a.Vals[0]
		switch a.Key {
		case "dedup":
			cfg.Dedup, cfg.ReplicaLabels = true, a.Vals
		case "downsample":
			cfg.Downsample = v == "on"
		case "max-inputs":
			cfg.MaxInputs = number(t, v)
		case "max-index":
			cfg.MaxIndexBytes = int64(number(t, v))
		case "raw":
			tiers.Raw = length(t, v)
		case "5m":
			tiers.FiveMinutes = length(t, v)
		case "1h":
			tiers.OneHour = length(t, v)
		default:
			t.Fatalf("unknown argument %q", a.Key)
		}
	}
	var err error
	cfg.Policy, err = policy.Parse("policy", []byte(d.Input), tiers)
	require.NoError(t, err)
	*g = golden{sim: newSim(t, cfg), names: map[ulid.ULID]string{}, ids: map[string]ulid.ULID{}}
}

func (g *golden) at(t *testing.T, d *datadriven.TestData) {
	var h int64
	d.ScanArgs(t, "now", &h)
	g.now = h * hour
}

func number(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return n
}

func length(t *testing.T, s string) time.Duration {
	d, err := model.ParseDuration(s)
	require.NoError(t, err)
	return time.Duration(d)
}

func span(t *testing.T, s string) (from, to int64) {
	a, b, ok := strings.Cut(s, "-")
	require.True(t, ok, s)
	return int64(number(t, a)) * hour, int64(number(t, b)) * hour
}

// id gives a name its ULID; the order of names is that in which they are seen.
func (g *golden) id(name string) ulid.ULID {
	if id, ok := g.ids[name]; ok {
		return id
	}
	id := ulid.MustNew(uint64(1000+len(g.ids)), bytes.NewReader(make([]byte, 10)))
	g.ids[name], g.names[id] = id, name
	return id
}

func (g *golden) block(t *testing.T, fields []string) {
	from, to := span(t, fields[1])
	m := g.upload(from, to, 100, "cluster", "eu")
	delete(g.in.Metas, m.ULID)
	delete(g.born, m.ULID)
	delete(g.content, m.ULID)
	m.ULID = g.id(fields[0])
	m.Compaction.Sources = []ulid.ULID{m.ULID}
	marks, keep := block.Marks{}, true
	for _, f := range fields[2:] {
		k, v, _ := strings.Cut(f, "=")
		switch k {
		case "partial":
			g.in.Partial[m.ULID], keep = time.UnixMilli(int64(number(t, v))*hour), false
		case "broken":
			g.in.Problems[m.ULID], keep = errors.New(v), false
		case "marked":
			marks.Deletion = &block.DeletionMark{ID: m.ULID, DeletionTime: int64(number(t, v)) * 3600}
		case "no-compact":
			marks.NoCompact = &block.NoCompactMark{ID: m.ULID, Reason: block.ReasonManual, Details: strings.ReplaceAll(v, "_", " ")}
		case "no-downsample":
			marks.NoDownsample = &block.NoDownsampleMark{ID: m.ULID, Reason: block.ReasonManual, Details: v}
		default:
			g.set(t, m, k, v)
		}
	}
	g.in.Marks[m.ULID] = marks
	if keep {
		g.in.Metas[m.ULID] = m
		g.content[m.ULID] = map[ulid.ULID]cells{}
		for _, s := range m.Compaction.Sources {
			g.born[s] = &block.Meta{ULID: s, MinTime: m.MinTime, MaxTime: m.MaxTime, Thanos: m.Thanos}
			g.content[m.ULID][s] = allCells
		}
	}
}

// set reads what a line says of the meta.json.
func (g *golden) set(t *testing.T, m *block.Meta, k, v string) {
	switch k {
	case "src":
		m.Compaction.Sources = nil
		for name := range strings.SplitSeq(v, ",") {
			m.Compaction.Sources = append(m.Compaction.Sources, g.id(name))
		}
	case "level":
		m.Compaction.Level = number(t, v)
	case "res":
		m.Thanos.Downsample.Resolution = length(t, v).Milliseconds()
	case "labels":
		m.Thanos.Labels = map[string]string{}
		for pair := range strings.SplitSeq(v, ",") {
			name, value, _ := strings.Cut(pair, ":")
			m.Thanos.Labels[name] = value
		}
	case "idx":
		m.Thanos.Files = files(int64(number(t, v)))
	case "from":
		m.Thanos.Source = v
	case "up":
		m.Thanos.UploadTime = time.UnixMilli(int64(number(t, v)) * hour).UTC()
	case "ours":
		m.Thanos.Source = block.SourceCompactor
		require.NoError(t, m.SetExtension(block.Extension{}))
	case "parents":
		for name := range strings.SplitSeq(v, ",") {
			m.Compaction.Parents = append(m.Compaction.Parents, block.Desc{ULID: g.id(name)})
		}
	case "shard":
		m.Thanos.Source = block.SourceCompactor
		require.NoError(t, m.SetExtension(block.Extension{Shard: g.shard(t, m, v)}))
	case "within":
		ext, _, err := m.Extension()
		require.NoError(t, err)
		ext.Shard.Within = g.shard(t, m, v)
		ext.Shard.Within.Sources = nil
		require.NoError(t, m.SetExtension(ext))
	case "thinned":
		ext, _, err := m.Extension()
		require.NoError(t, err)
		ext.Thinned = true
		require.NoError(t, m.SetExtension(ext))
	case "ext":
		m.Thanos.Extensions = []byte(strings.ReplaceAll(v, "$id", m.ULID.String()))
	default:
		t.Fatalf("unknown key %q", k)
	}
}

func (g *golden) shard(t *testing.T, m *block.Meta, v string) *block.Shard {
	name, bounds, _ := strings.Cut(v, "@")
	s := &block.Shard{Sources: m.Compaction.Sources}
	if of, ok := strings.CutPrefix(name, "of:"); ok { // fresh from a split: parents come before
		name, s.Sources = of, nil
		for _, d := range m.Compaction.Parents {
			s.Sources = append(s.Sources, d.ULID)
		}
	}
	split, numbers, _ := strings.Cut(name, "/")
	i, n, _ := strings.Cut(numbers, "-")
	from, to, _ := strings.Cut(bounds, "..")
	s.Split, s.Index, s.Count = split, number(t, i), number(t, n)
	if from != "" {
		s.From = labels.FromStrings("k", from)
	}
	if to != "" {
		s.To = labels.FromStrings("k", to)
	}
	return s
}

func (g *golden) delete(t *testing.T, fields []string) {
	from, to := span(t, fields[2])
	d := &block.DeleteRequest{ID: g.id(fields[0]), Selectors: []string{fields[1]}, MinTime: from, MaxTime: to, Created: time.UnixMilli(to).UTC(), State: block.DeletePending}
	for _, f := range fields[3:] {
		d.Clean = append(d.Clean, g.id(f))
	}
	g.in.Deletes = append(g.in.Deletes, d)
	for id, m := range g.born {
		g.deleted[id] |= deletedCells(d, m)
	}
}

func (g *golden) name(id ulid.ULID) string {
	if n, ok := g.names[id]; ok {
		return n
	}
	g.made++
	n := fmt.Sprintf("r%d", g.made)
	g.names[id], g.ids[n] = n, id
	return n
}

func (g *golden) list(ids []ulid.ULID) string {
	var out []string
	for _, id := range ids {
		out = append(out, g.name(id))
	}
	return strings.Join(out, " ")
}

func (g *golden) format(p plan.Plan) string {
	var out strings.Builder
	for _, j := range p.Jobs {
		g.formatJob(&out, j)
	}
	for _, m := range p.Garbage {
		all := append([]ulid.ULID{m.CoveredBy}, m.Shards...)
		fmt.Fprintf(&out, "garbage %s, in %s\n", g.name(m.Block), g.list(all))
	}
	for _, m := range p.Expired {
		fmt.Fprintf(&out, "expired %s: %s\n", g.name(m.Block), m.Why)
	}
	for _, h := range p.Held {
		fmt.Fprintf(&out, "held %s since hour %d: %s\n", g.name(h.Block), h.Since.UnixMilli()/hour, h.Why)
	}
	for _, s := range p.SetAside {
		fmt.Fprintf(&out, "set aside %s: %s\n", g.name(s.Block), s.Why)
	}
	for _, r := range p.Resting {
		why := r.Why
		for id, name := range g.names {
			why = strings.ReplaceAll(why, id.String(), name)
		}
		fmt.Fprintf(&out, "resting until hour %d: %s\n", r.Until.UnixMilli()/hour, why)
	}
	for _, kind := range []struct {
		name string
		ids  []ulid.ULID
	}{{"remove", p.Remove}, {"partial", p.Partial}, {"deletes done", p.DeletesDone}} {
		if len(kind.ids) > 0 {
			fmt.Fprintf(&out, "%s %s\n", kind.name, g.list(kind.ids))
		}
	}
	if out.Len() == 0 {
		return "nothing\n"
	}
	return out.String()
}

func (g *golden) formatJob(out *strings.Builder, j plan.Job) {
	why := j.Why
	for _, o := range j.Outputs {
		if ext, _, _ := o.Meta.Extension(); ext.Shard != nil {
			why = strings.ReplaceAll(why, ext.Shard.Split, "S")
		}
	}
	fmt.Fprintf(out, "%s %s %s: %s\n", j.Kind, policy.ResolutionName(j.Resolution), j.Labels, why)
	var in []ulid.ULID
	for _, m := range j.Inputs {
		in = append(in, m.ULID)
	}
	fmt.Fprintf(out, "  in  %s\n", g.list(in))
	for _, o := range j.Outputs {
		g.formatOutput(out, o)
	}
	if !j.Replaces {
		fmt.Fprintf(out, "  inputs stay\n")
	}
}

func (g *golden) formatOutput(out *strings.Builder, o plan.Output) {
	m := o.Meta
	ext, _, err := m.Extension()
	require.NoError(g.t, err)
	fmt.Fprintf(out, "  out %s %s level %d %d-%d src %s", g.name(m.ULID), policy.ResolutionName(m.Resolution()), m.Compaction.Level, m.MinTime/hour, m.MaxTime/hour, g.list(m.Compaction.Sources))
	if s := ext.Shard; s != nil {
		fmt.Fprintf(out, ", shard %d/%d %s..%s of %s", s.Index, s.Count, s.From.Get("k"), s.To.Get("k"), g.list(s.Sources))
	}
	for _, flag := range []struct {
		set  bool
		name string
	}{{o.FindBounds, "find bounds"}, {o.NoCompact, "no-compact"}, {ext.Thinned, "thinned"}, {len(ext.Expired) > 0, "expired recorded"}} {
		if flag.set {
			fmt.Fprintf(out, ", %s", flag.name)
		}
	}
	for _, r := range ext.Done {
		fmt.Fprintf(out, ", done with %s", policy.ResolutionName(r))
	}
	if o.Closes {
		fmt.Fprintf(out, ", closes after %s", g.list(o.Others))
	}
	if len(ext.Deletes) > 0 {
		fmt.Fprintf(out, ", without %s", g.list(ext.Deletes))
	}
	if len(ext.ReplicaLabels) > 0 {
		fmt.Fprintf(out, ", replica labels %v", ext.ReplicaLabels)
	}
	fmt.Fprintln(out)
}

// TestFormat: the table that operators see.
func TestFormat(t *testing.T) {
	require.Equal(t, "nothing to do: there are no blocks\n", plan.Format(plan.Plan{}, 10))
	s := newSim(t, defaultConfig())
	for h := range int64(4) {
		s.upload(h*2*hour, (h+1)*2*hour, 1<<20, "cluster", "eu")
	}
	s.now = 30 * hour
	out := plan.Format(s.plan(), 10)
	require.Contains(t, out, "4 blocks of 2h fill 1970-01-01 00:00–08:00")
	require.Contains(t, out, "44.0 MiB")
	require.True(t, slices.Contains(strings.Fields(out), "COVERAGE"), out)
	require.NotContains(t, out, "more")

	out = plan.Format(plan.Plan{Held: make([]plan.Held, 12)}, 10)
	require.Contains(t, out, "HELD 12\n")
	require.Contains(t, out, "… and 2 more\n")
	require.Equal(t, 10+3, strings.Count(out, "\n"))
}

// TestInputsUnchanged: the metas are shared with others, so Make must not touch them.
func TestInputsUnchanged(t *testing.T) {
	s := newSim(t, defaultConfig())
	for h := range int64(40) {
		s.upload(h*2*hour, (h+1)*2*hour, 100, "cluster", "eu")
	}
	s.now = 200 * hour
	before := map[ulid.ULID]string{}
	for id, m := range s.in.Metas {
		data, err := m.Encode()
		require.NoError(t, err)
		before[id] = string(data)
	}
	s.plan()
	for id, m := range s.in.Metas {
		data, err := m.Encode()
		require.NoError(t, err)
		require.Equal(t, before[id], string(data))
	}
}

// TestBehind: how far downsampling is behind counts from the first block that is
// still to come to 5m, whether there is any 5m data or not.
func TestBehind(t *testing.T) {
	s := newSim(t, defaultConfig())
	for h := range int64(10 * 12) {
		s.upload(h*2*hour, (h+1)*2*hour, 100, "cluster", "eu")
	}
	s.now = 10 * day
	behind := func() map[int64]int64 {
		out := map[int64]int64{}
		for _, c := range s.plan().Coverage {
			out[c.Resolution] = c.Behind
		}
		return out
	}
	require.Equal(t, map[int64]int64{0: 10 * day}, behind())
	s.cfg.Downsample = false
	require.Equal(t, map[int64]int64{0: 0}, behind())
	s.cfg.Downsample = true
	setPolicy(t, &s.cfg, "", policy.Tiers{FiveMinutes: 4 * 24 * time.Hour, OneHour: 4 * 24 * time.Hour})
	require.Equal(t, map[int64]int64{0: 4*day + 2*hour}, behind(), "what is too old for 5m data is not to come")
	s.cfg.Policy = nil
	s.settle(20)
	require.Equal(t, map[int64]int64{0: 2 * day, block.Resolution5m: 8 * day}, behind())
	late := s.upload(day, day+hour, 10, "cluster", "eu")
	require.Equal(t, 9*day, behind()[0])
	s.in.Marks[late.ULID] = block.Marks{NoDownsample: &block.NoDownsampleMark{ID: late.ULID}}
	require.Equal(t, 2*day, behind()[0])
}

package block

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
)

// In golden files a block is a line "<n> key=value…": n is the second in which it
// was cut, and stands for its ULID. Keys: t=<hours from>-<hours to>, level, src
// (list of n), labels (a=b,c=d), res (ms), from (source), up (minutes before now),
// marked (minutes before now), samples.

var goldenEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// goldenNow is late enough for a block of any number to have been cut before.
var goldenNow = goldenEpoch.Add(24 * time.Hour)

func goldenID(t *testing.T, n string) ulid.ULID {
	t.Helper()
	i, err := strconv.Atoi(n)
	require.NoError(t, err)
	return ulid.MustNew(ulid.Timestamp(goldenEpoch.Add(time.Duration(i)*time.Second)), bytes.NewReader(make([]byte, 10)))
}

func goldenNumber(id ulid.ULID) int {
	return int(time.UnixMilli(int64(id.Time())).Sub(goldenEpoch).Seconds())
}

func goldenNumbers(ids []ulid.ULID) string {
	var out []string
	for _, id := range ids {
		out = append(out, strconv.Itoa(goldenNumber(id)))
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, " ")
}

// parseBlocks reads a view from a golden file.
func parseBlocks(t *testing.T, input string) View {
	t.Helper()
	v := View{Metas: map[ulid.ULID]*Meta{}, Marks: map[ulid.ULID]Marks{}}
	for line := range strings.Lines(input) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		m := &Meta{ULID: goldenID(t, fields[0]), Version: 1}
		m.Compaction.Level = 1
		m.Stats.NumSamples = 1
		m.Thanos.Labels = map[string]string{}
		for _, f := range fields[1:] {
			key, value, _ := strings.Cut(f, "=")
			parseField(t, &v, m, key, value)
		}
		v.Metas[m.ULID] = m
	}
	return v
}

func parseField(t *testing.T, v *View, m *Meta, key, value string) {
	t.Helper()
	number := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		require.NoError(t, err)
		return n
	}
	switch key {
	case "t":
		from, to, _ := strings.Cut(value, "-")
		m.MinTime, m.MaxTime = number(from)*3_600_000, number(to)*3_600_000
	case "level":
		m.Compaction.Level = int(number(value))
	case "src":
		for s := range strings.SplitSeq(value, ",") {
			m.Compaction.Sources = append(m.Compaction.Sources, goldenID(t, s))
		}
	case "labels":
		for l := range strings.SplitSeq(value, ",") {
			name, val, _ := strings.Cut(l, "=")
			m.Thanos.Labels[name] = val
		}
	case "res":
		m.Thanos.Downsample.Resolution = number(value)
	case "from":
		m.Thanos.Source = value
	case "up":
		m.Thanos.UploadTime = goldenNow.Add(-time.Duration(number(value)) * time.Minute)
	case "marked":
		at := goldenNow.Add(-time.Duration(number(value)) * time.Minute).Unix()
		v.Marks[m.ULID] = Marks{Deletion: &DeletionMark{ID: m.ULID, Version: 1, DeletionTime: at}}
	case "samples":
		m.Stats.NumSamples = uint64(number(value))
	default:
		t.Fatalf("unknown key %q", key)
	}
}

func TestSelect(t *testing.T) {
	datadriven.RunTest(t, "testdata/select", func(t *testing.T, d *datadriven.TestData) string {
		body, blocks, _ := strings.Cut(d.Input, "---\n")
		if blocks == "" {
			body, blocks = "", d.Input
		}
		var sel Selection
		rules, err := parseSelector([]byte(body))
		if err != nil {
			return "error: " + err.Error()
		}
		sel.Selector = rules
		sel.Deduplicate = d.HasArg("dedup")
		var hours, minutes int
		if d.MaybeScanArgs(t, "min", &hours) {
			sel.MinTime, sel.MaxTime = int64(hours)*3_600_000, maxTime
		}
		if d.MaybeScanArgs(t, "max", &hours) {
			sel.MaxTime = int64(hours) * 3_600_000
		}
		if d.MaybeScanArgs(t, "consistency", &minutes) {
			sel.ConsistencyDelay = time.Duration(minutes) * time.Minute
		}
		if d.MaybeScanArgs(t, "marks", &minutes) {
			sel.IgnoreMarked, sel.IgnoreDeletionMarksDelay = true, time.Duration(minutes)*time.Minute
		}
		before := parseBlocks(t, blocks)
		n := len(before.Metas)
		after := Select(before, sel, goldenNow)
		require.Len(t, before.Metas, n, "the input is left alone")
		var kept []ulid.ULID
		for _, m := range after.Sorted() {
			kept = append(kept, m.ULID)
		}
		var out strings.Builder
		fmt.Fprintf(&out, "kept: %s\n", goldenNumbers(kept))
		for _, r := range slices.Sorted(maps.Keys(after.Dropped)) {
			fmt.Fprintf(&out, "%s: %d\n", r, after.Dropped[r])
		}
		return out.String()
	})
}

func TestPlanShip(t *testing.T) {
	datadriven.RunTest(t, "testdata/plan_ship", func(t *testing.T, d *datadriven.TestData) string {
		localLines, remoteLines, remote := strings.Cut(d.Input, "bucket\n")
		in := shipInput{rebuild: d.HasArg("rebuild"), uploadCompacted: d.HasArg("compacted"), shipped: map[ulid.ULID]struct{}{}, remoteKnown: remote}
		for _, m := range parseBlocks(t, localLines).Sorted() {
			in.local = append(in.local, localBlock{meta: m, labels: labels.FromStrings("c", "a")})
		}
		in.remote = parseBlocks(t, remoteLines).Sorted()
		for _, arg := range d.CmdArgs {
			if arg.Key == "shipped" {
				for _, n := range arg.Vals {
					in.shipped[goldenID(t, n)] = struct{}{}
				}
			}
		}
		p := planShip(in)
		if p.needRemote {
			return "needs the bucket\n"
		}
		var ship []ulid.ULID
		for _, b := range p.ship {
			ship = append(ship, b.meta.ULID)
		}
		return fmt.Sprintf("ship: %s\ncovered: %s\n", goldenNumbers(ship), goldenNumbers(p.covered))
	})
}

// TestJudge: a scenario of listings, one after the other.
//
// RELIABILITY B3
func TestJudge(t *testing.T) {
	var (
		known *Manifest
		seen  sightings
	)
	datadriven.RunTest(t, "testdata/judge", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "known":
			v := parseBlocks(t, d.Input)
			known, seen = &Manifest{Metas: v.Metas, Marks: v.Marks}, sightings{}
			return ""
		case "listed":
			var minutes int
			d.ScanArgs(t, "at", &minutes)
			l := listing{}
			for line := range strings.Lines(d.Input) {
				fields := strings.Fields(line)
				b := &listed{small: map[string]version{}}
				for _, name := range fields[1:] {
					b.small[name] = version{}
				}
				l[goldenID(t, fields[0])] = b
			}
			j := seen.judge(known, l, goldenNow.Add(time.Duration(minutes)*time.Minute), 5*time.Minute)
			slices.SortFunc(j.drop, ulid.ULID.Compare)
			slices.SortFunc(j.probe, ulid.ULID.Compare)
			return fmt.Sprintf("drop: %s\nprobe: %s\nkept missing: %d\nfault: %t\n", goldenNumbers(j.drop), goldenNumbers(j.probe), j.keep, j.fault)
		}
		t.Fatalf("unknown command %s", d.Cmd)
		return ""
	})
}

// TestDuplicatesTwin compares Duplicates with its definition on random blocks.
func TestDuplicatesTwin(t *testing.T) {
	for seed := range int64(200) {
		metas := randomMetas(seed)
		want := map[ulid.ULID]bool{}
		for _, a := range metas {
			for _, b := range metas {
				if a.ULID == b.ULID || a.GroupKey() != b.GroupKey() || !allIn(a.Sources(), b.Sources()) {
					continue
				}
				if len(a.Sources()) < len(b.Sources()) || a.ULID.Compare(b.ULID) > 0 {
					want[a.ULID] = true
				}
			}
		}
		got := map[ulid.ULID]bool{}
		for _, id := range Duplicates(metas) {
			got[id] = true
		}
		require.Equal(t, want, got, "seed %d", seed)
	}
}

// RELIABILITY C1: the closing shard hides what all shards were cut from only
// once all of them are there.
func TestDuplicatesOfShards(t *testing.T) {
	id := func(n byte) ulid.ULID { return ulid.ULID{15: n} }
	source := &Meta{ULID: id(1), MaxTime: 100, Thanos: Thanos{Labels: map[string]string{"a": "b"}}}
	shard := func(n byte, index int, sources ...ulid.ULID) *Meta {
		m := &Meta{ULID: id(n), MaxTime: 100, Compaction: Compaction{Sources: append(sources, id(n))}, Thanos: Thanos{Labels: map[string]string{"a": "b"}}}
		require.NoError(t, m.SetExtension(Extension{Shard: &Shard{Split: "s", Index: index, Count: 3}}))
		return m
	}
	first, second, closing := shard(2, 0), shard(3, 1), shard(4, 2, id(1))
	dups := func(metas ...*Meta) []ulid.ULID {
		all := map[ulid.ULID]*Meta{}
		for _, m := range metas {
			all[m.ULID] = m
		}
		return Duplicates(all)
	}
	require.Empty(t, dups(source, first, second))
	require.Empty(t, dups(source, first, closing), "the second is missing")
	require.Equal(t, []ulid.ULID{id(1)}, dups(source, first, second, closing))
	require.NoError(t, closing.SetExtension(Extension{Shard: &Shard{Split: "s", Index: 2, Count: 3, Void: []int{1}}}))
	require.Equal(t, []ulid.ULID{id(1)}, dups(source, first, closing), "there was nothing in the second")
	require.Empty(t, dups(source, closing), "the first is missing")
	closing = shard(4, 2, id(1))
	later := shard(5, 1)
	later.MinTime, later.MaxTime = 100, 200
	require.Empty(t, dups(source, first, later, closing), "another time's does not count")
}

// RELIABILITY C1: once late data was cut by the same bounds, the shards from
// before hold nothing that the new ones don't, even while others are still to
// come; and beside what it was cut from a shard would count twice.
func TestDuplicatesOfShardsCutAgain(t *testing.T) {
	id := func(n byte) ulid.ULID { return ulid.ULID{15: n} }
	whole := &Meta{ULID: id(9), MaxTime: 100, Compaction: Compaction{Sources: []ulid.ULID{id(1), id(2)}}, Thanos: Thanos{Labels: map[string]string{"a": "b"}}}
	middle := labels.FromStrings("x", "m")
	shard := func(n byte, split string, index int, from ...byte) *Meta {
		m := &Meta{ULID: id(n), MaxTime: 100, Compaction: Compaction{Sources: []ulid.ULID{id(n)}}, Thanos: whole.Thanos}
		s := &Shard{Split: split, Index: index, Count: 2}
		for _, n := range from {
			s.Sources = append(s.Sources, id(n))
		}
		if s.To = middle; index == 1 {
			s.From, s.To = middle, labels.EmptyLabels()
			m.Compaction.Sources = append(s.Sources, id(n))
		}
		require.NoError(t, m.SetExtension(Extension{Shard: s}))
		return m
	}
	dups := func(metas ...*Meta) (out []byte) {
		all := map[ulid.ULID]*Meta{}
		for _, m := range metas {
			all[m.ULID] = m
		}
		for _, id := range Duplicates(all) {
			out = append(out, id[15])
		}
		return out
	}
	a0, a1 := shard(11, "s", 0, 1, 2), shard(12, "s", 1, 1, 2)
	b0, b1 := shard(13, "s", 0, 1, 2, 3), shard(14, "s", 1, 1, 2, 3)
	require.Empty(t, dups(a0, a1), "one shard doesn't hold another")
	require.Equal(t, []byte{11}, dups(a0, a1, b0), "the first is there anew")
	require.Equal(t, []byte{11, 12}, dups(a0, a1, b0, b1))
	require.Equal(t, []byte{11}, dups(whole, a0), "of a split that isn't done")
	require.Equal(t, []byte{9}, dups(whole, a0, a1))
	require.Empty(t, dups(a0, shard(15, "s", 0, 1, 3)), "each has something of its own")
	require.Equal(t, []byte{15, 16}, dups(a0, a1, shard(15, "t", 0, 1, 2), shard(16, "t", 1, 1, 2)), "cut twice: one split stays whole")
}

// RELIABILITY C10: beside a block that replicas were made one in, theirs would
// count twice, though their groups are others.
func TestDuplicatesOfReplicas(t *testing.T) {
	id := func(n byte) ulid.ULID { return ulid.ULID{15: n} }
	block := func(n byte, labels map[string]string, resolution int64, sources ...ulid.ULID) *Meta {
		return &Meta{ULID: id(n), MaxTime: 100, Compaction: Compaction{Sources: sources}, Thanos: Thanos{Labels: labels, Downsample: Downsample{Resolution: resolution}}}
	}
	deduped := func(m *Meta) *Meta {
		require.NoError(t, m.SetExtension(Extension{ReplicaLabels: []string{"replica"}}))
		return m
	}
	one := map[string]string{"cluster": "x"}
	a, b := block(1, map[string]string{"cluster": "x", "replica": "a"}, 0), block(2, map[string]string{"cluster": "x", "replica": "b"}, 0)
	other := block(3, map[string]string{"cluster": "y", "replica": "b"}, 0)
	dups := func(metas ...*Meta) (out []byte) {
		all := map[ulid.ULID]*Meta{}
		for _, m := range metas {
			all[m.ULID] = m
		}
		for _, id := range Duplicates(all) {
			out = append(out, id[15])
		}
		return out
	}
	require.Equal(t, []byte{1, 2}, dups(a, b, other, deduped(block(4, one, 0, id(1), id(2)))))
	require.Equal(t, []byte{1}, dups(a, b, other, deduped(block(4, one, 0, id(1)))))
	require.Empty(t, dups(a, b, other, deduped(block(4, one, 300_000, id(1), id(2)))), "another resolution is another matter")
	require.Empty(t, dups(a, b, other, block(4, one, 0, id(1), id(2))), "nobody has said that it was deduplicated")
	require.Equal(t, []byte{2}, dups(block(2, map[string]string{"replica": "b"}, 0), deduped(block(4, map[string]string{"replica": Deduped}, 0, id(2)))))
}

func allIn(a, b []ulid.ULID) bool {
	for _, id := range a {
		if !slices.Contains(b, id) {
			return false
		}
	}
	return true
}

func TestBackoff(t *testing.T) {
	const interval, most = 30 * time.Second, 2 * time.Minute
	for failures, want := range []time.Duration{interval, interval, 2 * interval, 4 * interval, most, most} {
		require.Equal(t, want*3/4, backoff(failures, interval, most, 0))
		require.Less(t, backoff(failures, interval, most, 0.999), want)
		require.Greater(t, backoff(failures, interval, most, 0.999), want*99/100)
	}
	require.Equal(t, time.Minute*3/4, backoff(9, time.Minute, time.Second, 0), "never sooner than the interval")
	require.Equal(t, most*3/4, backoff(1_000_000, interval, most, 0))
}

func TestSelectorIgnoresLabels(t *testing.T) {
	v := parseBlocks(t, "1 labels=cluster=a,replica=0\n2 labels=cluster=a,replica=1\n")
	rules, err := parseSelector([]byte("- {action: drop, source_labels: [replica], regex: .+}"))
	require.NoError(t, err)
	require.Empty(t, Select(v, Selection{Selector: rules}, goldenNow).Metas)
	require.Len(t, Select(v, Selection{Selector: rules, IgnoreLabels: []string{"replica"}}, goldenNow).Metas, 2, "replicas look alike")
}

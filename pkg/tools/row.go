package tools

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
)

// Row is a block as it is shown, for programs too.
type Row struct {
	ULID       ulid.ULID     `json:"ulid"`
	MinTime    time.Time     `json:"min_time"` // inclusive
	MaxTime    time.Time     `json:"max_time"` // exclusive
	Labels     labels.Labels `json:"labels"`   // external
	Resolution string        `json:"resolution"`
	Level      int           `json:"level"`
	Sources    int           `json:"sources"` // blocks of level 1 in it
	Shard      string        `json:"shard,omitempty"`
	Series     uint64        `json:"series"`
	Samples    uint64        `json:"samples"`
	Chunks     uint64        `json:"chunks"`
	Bytes      int64         `json:"bytes"`
	Source     string        `json:"source"` // who wrote it
	Uploaded   time.Time     `json:"uploaded"`
	Marks      []string      `json:"marks"` // the names of the marks without .json
	State      string        `json:"state"` // ok, marked, partial or broken
	Problem    string        `json:"problem,omitempty"`
}

// States of a block in a Row.
const (
	StateOK      = "ok"
	StateMarked  = "marked"  // for deletion
	StatePartial = "partial" // without a meta.json
	StateBroken  = "broken"  // can't be used
)

// Rows lists the blocks of a view from the oldest data to the newest, then what
// can't be used.
func Rows(v block.View) []Row {
	rows := make([]Row, 0, len(v.Metas))
	for _, m := range v.Sorted() {
		rows = append(rows, rowOf(m, v.Marks[m.ULID]))
	}
	for _, id := range slices.SortedFunc(maps.Keys(v.Problems), ulid.ULID.Compare) {
		rows = append(rows, Row{ULID: id, State: StateBroken, Problem: v.Problems[id].Error(), Marks: markNames(v.Marks[id])})
	}
	for _, id := range slices.SortedFunc(maps.Keys(v.Partial), ulid.ULID.Compare) {
		rows = append(rows, Row{ULID: id, State: StatePartial, Uploaded: v.Partial[id].UTC(), Problem: "it has no meta.json: an upload that goes on or was cut off", Marks: markNames(v.Marks[id])})
	}
	return rows
}

func rowOf(m *block.Meta, marks block.Marks) Row {
	r := Row{
		ULID: m.ULID, MinTime: time.UnixMilli(m.MinTime).UTC(), MaxTime: time.UnixMilli(m.MaxTime).UTC(), Labels: m.Labels(),
		Resolution: Resolution(m.Resolution()), Level: m.Compaction.Level, Sources: len(m.Sources()),
		Series: m.Stats.NumSeries, Samples: m.Stats.NumSamples, Chunks: m.Stats.NumChunks, Bytes: m.SizeBytes(),
		Source: m.Thanos.Source, Uploaded: m.Uploaded().UTC(), Marks: markNames(marks), State: StateOK,
	}
	if ext, ok, err := m.Extension(); ok && err == nil && ext.Shard != nil {
		r.Shard = fmt.Sprintf("%d/%d", ext.Shard.Index+1, ext.Shard.Count)
	}
	if marks.Deletion != nil {
		r.State = StateMarked
	}
	return r
}

func markNames(m block.Marks) []string {
	out := []string{}
	if m.Deletion != nil {
		out = append(out, "deletion")
	}
	if m.NoCompact != nil {
		out = append(out, "no-compact")
	}
	if m.NoDownsample != nil {
		out = append(out, "no-downsample")
	}
	return out
}

// Resolution names a resolution in ms.
func Resolution(ms int64) string {
	if ms == block.ResolutionRaw {
		return "raw"
	}
	return model.Duration(time.Duration(ms) * time.Millisecond).String()
}

// Range is how much time a block spans.
func (r Row) Range() time.Duration { return r.MaxTime.Sub(r.MinTime) }

// sortKeys are the columns that rows can be sorted by.
func sortKeys() map[string]func(a, b Row) int {
	return map[string]func(a, b Row) int{
		"ulid":       func(a, b Row) int { return a.ULID.Compare(b.ULID) },
		"from":       func(a, b Row) int { return a.MinTime.Compare(b.MinTime) },
		"until":      func(a, b Row) int { return a.MaxTime.Compare(b.MaxTime) },
		"range":      func(a, b Row) int { return cmp.Compare(a.Range(), b.Range()) },
		"series":     func(a, b Row) int { return cmp.Compare(a.Series, b.Series) },
		"samples":    func(a, b Row) int { return cmp.Compare(a.Samples, b.Samples) },
		"chunks":     func(a, b Row) int { return cmp.Compare(a.Chunks, b.Chunks) },
		"size":       func(a, b Row) int { return cmp.Compare(a.Bytes, b.Bytes) },
		"level":      func(a, b Row) int { return cmp.Compare(a.Level, b.Level) },
		"labels":     func(a, b Row) int { return labels.Compare(a.Labels, b.Labels) },
		"resolution": func(a, b Row) int { return strings.Compare(a.Resolution, b.Resolution) },
		"source":     func(a, b Row) int { return strings.Compare(a.Source, b.Source) },
	}
}

// SortBy sorts rows by columns, the first of them first; the names are those of
// the table, in any case. What is equal keeps its order.
func SortBy(rows []Row, columns []string) error {
	keys := sortKeys()
	var by []func(a, b Row) int
	for _, c := range columns {
		key, ok := keys[strings.ToLower(c)]
		if !ok {
			return fmt.Errorf("no column %q to sort by; there are %s", c, strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
		}
		by = append(by, key)
	}
	slices.SortStableFunc(rows, func(a, b Row) int {
		for _, key := range by {
			if d := key(a, b); d != 0 {
				return d
			}
		}
		return 0
	})
	return nil
}

// Newest are the newest raw blocks of a view, one of each set of external labels,
// that aren't marked for deletion.
func Newest(v block.View) []*block.Meta {
	newest := map[string]*block.Meta{}
	for _, m := range v.Sorted() {
		key := m.GroupKey()
		if m.Resolution() != block.ResolutionRaw || v.Marks[m.ULID].Deletion != nil {
			continue
		}
		if old := newest[key]; old == nil || m.MaxTime > old.MaxTime {
			newest[key] = m
		}
	}
	return slices.SortedFunc(maps.Values(newest), func(a, b *block.Meta) int { return a.ULID.Compare(b.ULID) })
}

package tools

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// GroupStats is what a bucket has of one set of external labels at one resolution.
type GroupStats struct {
	Labels     labels.Labels `json:"labels"`
	Resolution string        `json:"resolution"`
	Blocks     int           `json:"blocks"`
	Marked     int           `json:"marked"` // of these, for deletion
	Series     uint64        `json:"series"` // of the block that has most
	Samples    uint64        `json:"samples"`
	Chunks     uint64        `json:"chunks"`
	Bytes      int64         `json:"bytes"`
	Oldest     time.Time     `json:"oldest"`
	Newest     time.Time     `json:"newest"`
}

// BucketStats sums up a bucket.
type BucketStats struct {
	Groups  []GroupStats `json:"groups"` // by labels and resolution
	Blocks  int          `json:"blocks"`
	Marked  int          `json:"marked"`
	Partial int          `json:"partial"`
	Broken  int          `json:"broken"`
	Samples uint64       `json:"samples"`
	Bytes   int64        `json:"bytes"`
}

// Stats sums up rows, which Rows has made.
func Stats(rows []Row) BucketStats {
	s := BucketStats{Groups: []GroupStats{}}
	at := map[string]int{}
	for _, r := range rows {
		switch r.State {
		case StatePartial:
			s.Partial++
			continue
		case StateBroken:
			s.Broken++
			continue
		}
		key := r.Resolution + " " + r.Labels.String()
		i, ok := at[key]
		if !ok {
			i = len(s.Groups)
			at[key] = i
			s.Groups = append(s.Groups, GroupStats{Labels: r.Labels, Resolution: r.Resolution, Oldest: r.MinTime, Newest: r.MaxTime})
		}
		s.Groups[i].add(r)
		s.Blocks++
		s.Samples += r.Samples
		s.Bytes += r.Bytes
		if r.State == StateMarked {
			s.Marked++
		}
	}
	order := map[string]int{"raw": 0, "5m": 1, "1h": 2}
	slices.SortFunc(s.Groups, func(a, b GroupStats) int {
		return cmp.Or(labels.Compare(a.Labels, b.Labels), cmp.Compare(order[a.Resolution], order[b.Resolution]), cmp.Compare(a.Resolution, b.Resolution))
	})
	return s
}

func (g *GroupStats) add(r Row) {
	g.Blocks++
	g.Samples += r.Samples
	g.Chunks += r.Chunks
	g.Bytes += r.Bytes
	g.Series = max(g.Series, r.Series)
	if r.State == StateMarked {
		g.Marked++
	}
	if r.MinTime.Before(g.Oldest) {
		g.Oldest = r.MinTime
	}
	if r.MaxTime.After(g.Newest) {
		g.Newest = r.MaxTime
	}
}

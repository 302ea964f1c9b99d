package storeapi

import (
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/firnline/firnline/pkg/storeapi/storepb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/hintspb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/labelpb"
)

// typePrefix stands before a message's name in the type URL of an Any.
const typePrefix = "type.googleapis.com/"

func toMatchers(in []*storepb.LabelMatcher) ([]*labels.Matcher, error) {
	var out []*labels.Matcher
	for _, m := range in {
		var typ labels.MatchType
		switch m.Type {
		case storepb.LabelMatcher_EQ:
			typ = labels.MatchEqual
		case storepb.LabelMatcher_NEQ:
			typ = labels.MatchNotEqual
		case storepb.LabelMatcher_RE:
			typ = labels.MatchRegexp
		case storepb.LabelMatcher_NRE:
			typ = labels.MatchNotRegexp
		default:
			return nil, fmt.Errorf("%w: matcher of label %q has the unknown type %d", ErrBadRequest, m.Name, m.Type)
		}
		c, err := labels.NewMatcher(typ, m.Name, m.Value)
		if err != nil {
			return nil, fmt.Errorf("%w: matcher of label %q: %w", ErrBadRequest, m.Name, err)
		}
		out = append(out, c)
	}
	return out, nil
}

func fromMatchers(in []*labels.Matcher) []*storepb.LabelMatcher {
	var out []*storepb.LabelMatcher
	for _, m := range in {
		typ := storepb.LabelMatcher_EQ
		switch m.Type {
		case labels.MatchNotEqual:
			typ = storepb.LabelMatcher_NEQ
		case labels.MatchRegexp:
			typ = storepb.LabelMatcher_RE
		case labels.MatchNotRegexp:
			typ = storepb.LabelMatcher_NRE
		}
		out = append(out, &storepb.LabelMatcher{Type: typ, Name: m.Name, Value: m.Value})
	}
	return out
}

// toLabels makes labels of those received. What package labels can't hold of a
// name or value, which then is no label but garbage, it cuts off.
func toLabels(in []*labelpb.Label) labels.Labels {
	b := labels.NewScratchBuilder(len(in))
	for _, l := range in {
		if l.Value != "" {
			b.Add(l.Name[:min(len(l.Name), maxLabelBytes)], l.Value[:min(len(l.Value), maxLabelBytes)])
		}
	}
	b.Sort()
	return b.Labels()
}

func fromLabels(in labels.Labels) []*labelpb.Label {
	var out []*labelpb.Label
	in.Range(func(l labels.Label) { out = append(out, &labelpb.Label{Name: l.Name, Value: l.Value}) })
	return out
}

func fromLabelSet(in labels.Labels) *labelpb.ZLabelSet {
	return &labelpb.ZLabelSet{Labels: fromLabels(in)}
}

func toShard(in *storepb.ShardInfo) (*Shard, error) {
	if in == nil || in.TotalShards <= 1 {
		return nil, nil
	}
	if in.ShardIndex < 0 || in.ShardIndex >= in.TotalShards {
		return nil, fmt.Errorf("%w: shard %d of %d", ErrBadRequest, in.ShardIndex, in.TotalShards)
	}
	return &Shard{Index: in.ShardIndex, Total: in.TotalShards, By: in.By, Labels: in.Labels}, nil
}

func fromShard(in *Shard) *storepb.ShardInfo {
	if in == nil {
		return nil
	}
	return &storepb.ShardInfo{ShardIndex: in.Index, TotalShards: in.Total, By: in.By, Labels: in.Labels}
}

// strategy is the wire's form of whether a partial answer will do.
func strategy(partial bool) storepb.PartialResponseStrategy {
	if partial {
		return storepb.PartialResponseStrategy_WARN
	}
	return storepb.PartialResponseStrategy_ABORT
}

func isPartial(disabled bool, s storepb.PartialResponseStrategy) bool {
	return !disabled && s == storepb.PartialResponseStrategy_WARN
}

// message is a generated message with its name.
type message interface {
	generated
	MarshalVT() ([]byte, error)
}

func toAny(name string, m message) *anypb.Any {
	b, err := m.MarshalVT()
	if err != nil {
		panic(err) // a message of numbers and valid strings
	}
	return &anypb.Any{TypeUrl: typePrefix + name, Value: b}
}

// fromAny decodes an Any into m when it is of the type named, and leaves m alone otherwise.
func fromAny(in *anypb.Any, name string, m message) error {
	if in == nil || in.TypeUrl[strings.LastIndexByte(in.TypeUrl, '/')+1:] != name {
		return nil
	}
	if err := m.UnmarshalVT(in.Value); err != nil {
		return fmt.Errorf("hints %s: %w", name, err)
	}
	return nil
}

func toBlocks(in []*hintspb.Block) (out []ulid.ULID) {
	for _, b := range in {
		if id, err := ulid.Parse(b.Id); err == nil { // of use to people only, so not worth failing for
			out = append(out, id)
		}
	}
	return out
}

func fromBlocks(in []ulid.ULID) (out []*hintspb.Block) {
	for _, id := range in {
		out = append(out, &hintspb.Block{Id: id.String()})
	}
	return out
}

func toStats(in *hintspb.QueryStats) Stats {
	if in == nil {
		return Stats{}
	}
	return Stats{
		BlocksQueried: in.BlocksQueried, SeriesMerged: in.MergedSeriesCount, ChunksMerged: in.MergedChunksCount,

		PostingsTouched: in.PostingsTouched, PostingsTouchedBytes: in.PostingsTouchedSizeSum,
		PostingsFetched: in.PostingsFetched, PostingsFetchedBytes: in.PostingsFetchedSizeSum, PostingsFetches: in.PostingsFetchCount,

		SeriesTouched: in.SeriesTouched, SeriesTouchedBytes: in.SeriesTouchedSizeSum,
		SeriesFetched: in.SeriesFetched, SeriesFetchedBytes: in.SeriesFetchedSizeSum, SeriesFetches: in.SeriesFetchCount,

		ChunksTouched: in.ChunksTouched, ChunksTouchedBytes: in.ChunksTouchedSizeSum,
		ChunksFetched: in.ChunksFetched, ChunksFetchedBytes: in.ChunksFetchedSizeSum, ChunksFetches: in.ChunksFetchCount,

		DownloadedBytes: in.DataDownloadedSizeSum,
		GetAllNanos:     int64(in.GetAllDuration.AsDuration()), MergeNanos: int64(in.MergeDuration.AsDuration()),
	}
}

func fromStats(in Stats) *hintspb.QueryStats {
	return &hintspb.QueryStats{
		BlocksQueried: in.BlocksQueried, MergedSeriesCount: in.SeriesMerged, MergedChunksCount: in.ChunksMerged,

		PostingsTouched: in.PostingsTouched, PostingsTouchedSizeSum: in.PostingsTouchedBytes,
		PostingsFetched: in.PostingsFetched, PostingsFetchedSizeSum: in.PostingsFetchedBytes, PostingsFetchCount: in.PostingsFetches,

		SeriesTouched: in.SeriesTouched, SeriesTouchedSizeSum: in.SeriesTouchedBytes,
		SeriesFetched: in.SeriesFetched, SeriesFetchedSizeSum: in.SeriesFetchedBytes, SeriesFetchCount: in.SeriesFetches,

		ChunksTouched: in.ChunksTouched, ChunksTouchedSizeSum: in.ChunksTouchedBytes,
		ChunksFetched: in.ChunksFetched, ChunksFetchedSizeSum: in.ChunksFetchedBytes, ChunksFetchCount: in.ChunksFetches,

		DataDownloadedSizeSum: in.DownloadedBytes,
		GetAllDuration:        durationpb.New(time.Duration(in.GetAllNanos)), MergeDuration: durationpb.New(time.Duration(in.MergeNanos)),
	}
}

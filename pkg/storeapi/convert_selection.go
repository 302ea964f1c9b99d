package storeapi

import (
	"fmt"
	"math"
	"slices"

	"github.com/firnline/firnline/pkg/storeapi/storepb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/hintspb"
)

// Names of the messages in the fields "hints".
const (
	seriesRequestHints       = "hintspb.SeriesRequestHints"
	seriesResponseHints      = "hintspb.SeriesResponseHints"
	labelNamesRequestHints   = "hintspb.LabelNamesRequestHints"
	labelNamesResponseHints  = "hintspb.LabelNamesResponseHints"
	labelValuesRequestHints  = "hintspb.LabelValuesRequestHints"
	labelValuesResponseHints = "hintspb.LabelValuesResponseHints"
)

// batchSize is how many series our client asks for in a frame.
const batchSize = 64

// fromSelection is the request that our client sends. Statistics are always
// asked for: they cost a frame.
func fromSelection(sel Selection) *storepb.SeriesRequest {
	req := &storepb.SeriesRequest{
		MinTime:                 sel.Mint,
		MaxTime:                 sel.Maxt,
		Matchers:                fromMatchers(sel.Matchers),
		MaxResolutionWindow:     sel.MaxResolution,
		PartialResponseDisabled: !sel.PartialResponse,
		PartialResponseStrategy: strategy(sel.PartialResponse),
		SkipChunks:              sel.SkipChunks,
		Hints:                   toAny(seriesRequestHints, &hintspb.SeriesRequestHints{BlockMatchers: fromMatchers(sel.BlockMatchers), EnableQueryStats: true}),
		QueryHints:              fromHints(sel.Hints),
		ShardInfo:               fromShard(sel.Shard),
		WithoutReplicaLabels:    sel.WithoutReplicaLabels,
		Limit:                   int64(sel.Limit),
		ResponseBatchSize:       batchSize,
		FirnlineEncodings:       extraEncodings(),
	}
	for _, a := range sel.Aggregates {
		req.Aggregates = append(req.Aggregates, storepb.Aggr(a))
	}
	return req
}

func fromHints(h Hints) *storepb.QueryHints {
	out := &storepb.QueryHints{StepMillis: h.StepMillis}
	if h.Func != "" {
		out.Func = &storepb.Func{Name: h.Func}
	}
	if h.By || len(h.Grouping) > 0 {
		out.Grouping = &storepb.Grouping{By: h.By, Labels: h.Grouping}
	}
	if h.RangeMillis != 0 {
		out.Range = &storepb.Range{Millis: h.RangeMillis}
	}
	if out.StepMillis == 0 && out.Func == nil && out.Grouping == nil && out.Range == nil {
		return nil
	}
	return out
}

// toSelection is what a request asks for, and whether it asks for statistics.
// Errors are ErrBadRequest.
func toSelection(req *storepb.SeriesRequest) (sel Selection, stats bool, err error) {
	sel = Selection{
		Mint: req.MinTime, Maxt: req.MaxTime,
		MaxResolution:        req.MaxResolutionWindow,
		SkipChunks:           req.SkipChunks,
		Limit:                toLimit(req.Limit),
		WithoutReplicaLabels: req.WithoutReplicaLabels,
		PartialResponse:      isPartial(req.PartialResponseDisabled, req.PartialResponseStrategy),
		Hints:                toHints(req),
	}
	if sel.Matchers, err = toMatchers(req.Matchers); err != nil {
		return sel, false, err
	}
	if sel.Shard, err = toShard(req.ShardInfo); err != nil {
		return sel, false, err
	}
	for _, a := range req.Aggregates {
		if a < storepb.Aggr_RAW || a > storepb.Aggr_COUNTER {
			return sel, false, fmt.Errorf("%w: aggregate %d is unknown", ErrBadRequest, a)
		}
		sel.Aggregates = append(sel.Aggregates, Aggregate(a))
	}
	var hints hintspb.SeriesRequestHints
	if err := fromAny(req.Hints, seriesRequestHints, &hints); err != nil {
		return sel, false, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	sel.BlockMatchers, err = toMatchers(hints.BlockMatchers)
	return sel, hints.EnableQueryStats, err
}

// toHints takes the older fields where the newer one is missing.
func toHints(req *storepb.SeriesRequest) Hints {
	q := req.QueryHints
	if q == nil {
		return Hints{StepMillis: req.Step, RangeMillis: req.Range}
	}
	return Hints{
		Func: q.GetFunc().GetName(), StepMillis: q.StepMillis, RangeMillis: q.GetRange().GetMillis(),
		By: q.GetGrouping().GetBy(), Grouping: slices.Clone(q.GetGrouping().GetLabels()),
	}
}

// toLimit makes no limit of those below 0.
func toLimit(n int64) int { return int(min(max(n, 0), math.MaxInt32)) }

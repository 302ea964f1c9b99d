package query

import (
	"context"
	"math"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/storeapi"
)

// hiding is a Store without the samples that delete requests name: those of
// sidecars, and of gateways that know of no requests. It sees series when their
// replica labels are gone, so requests that speak of these are left to the
// gateways, who see all labels. Names and values of labels are not filtered.
type hiding struct {
	storeapi.Store
	hider func() *block.Hider
}

// chunkReach is how far, in ms, the chunks of an answer are taken to reach beyond
// the time that was asked for: longer than Prometheus' own, and than a window.
const chunkReach = 24 * 60 * 60 * 1000

// Series implements storeapi.Store. Where no request concerns the selection the
// set is passed on as it is.
func (h hiding) Series(ctx context.Context, sel storeapi.Selection) (storeapi.SeriesSet, error) {
	mint, maxt := max(sel.Mint, math.MinInt64+chunkReach)-chunkReach, min(sel.Maxt, math.MaxInt64-chunkReach)+chunkReach
	hider := h.hider().Without(sel.WithoutReplicaLabels).For(mint, maxt, labels.EmptyLabels())
	if hider == nil {
		return h.Store.Series(ctx, sel)
	}
	limit := sel.Limit
	sel.Limit = 0 // it counts series that show
	set, err := h.Store.Series(ctx, sel)
	if err != nil {
		return nil, err
	}
	return storeapi.Limit(storeapi.Hide(set, sel, hider.Intervals), limit), nil
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/firnline/firnline/pkg/query/internal/querier"
	"github.com/firnline/firnline/pkg/storeapi"
)

// Source evaluates queries that come by RPC (thanos.Query), from queriers above us.
type Source struct {
	engine   Engine
	data     querier.Factory
	replicas []string
}

var _ storeapi.QuerySource = (*Source)(nil)

// NewSource makes a Source of an engine and the data it evaluates over.
// replicaLabels are those of requests that name none.
func NewSource(e Engine, data querier.Factory, replicaLabels []string) *Source {
	return &Source{engine: e, data: data, replicas: replicaLabels}
}

// Query evaluates one query. Errors wrap the sentinels of storeapi. A scalar
// comes back as a series without labels; a string has no such form and is ErrBadRequest.
func (s *Source) Query(ctx context.Context, req storeapi.QueryRequest) (storeapi.QueryResult, error) {
	if err := checkRequest(req); err != nil {
		return storeapi.QueryResult{}, fmt.Errorf("%w: %w", storeapi.ErrBadRequest, err)
	}
	replicas := req.ReplicaLabels
	if len(replicas) == 0 {
		replicas = s.replicas
	}
	data := s.data.Queryable(querier.Options{
		Dedup:           req.Dedup,
		ReplicaLabels:   replicas,
		PartialResponse: req.PartialResponse,
		MaxResolution:   req.MaxResolution,
		StoreMatchers:   req.StoreMatchers,
		Shard:           req.Shard,
		SkipChunks:      req.SkipChunks,
	})
	res, err := s.engine.Exec(ctx, data, Request{
		Expr: req.Expr, Start: req.Start, End: req.End, Step: req.Step,
		Timeout: req.Timeout, Lookback: req.Lookback, MaxResolution: req.MaxResolution,
	})
	if err != nil {
		return storeapi.QueryResult{}, sourceError(err)
	}
	// The result is not closed: the answer outlives this call, and with it the samples.
	value, err := tabular(res.Value, req.Step > 0)
	if err != nil {
		return storeapi.QueryResult{}, err
	}
	out := storeapi.QueryResult{Value: value}
	for _, w := range res.Annotations {
		out.Warnings = append(out.Warnings, w.Error())
	}
	if res.Stats != nil && res.Stats.Samples != nil {
		out.SamplesTotal = res.Stats.Samples.TotalSamples
		out.PeakSamples = int64(res.Stats.Samples.PeakSamples)
	}
	return out, nil
}

// checkRequest refuses what can't be evaluated, or not in bounded memory.
func checkRequest(req storeapi.QueryRequest) error {
	if err := CheckEngineName(req.Engine); err != nil {
		return err
	}
	switch {
	case req.Step < 0:
		return fmt.Errorf("step %s is negative", req.Step)
	case req.Step > 0 && req.End.Before(req.Start):
		return fmt.Errorf("end %s is before start %s", req.End.UTC().Format(time.RFC3339), req.Start.UTC().Format(time.RFC3339))
	case req.Step > 0 && req.End.Sub(req.Start)/req.Step > MaxPoints:
		return fmt.Errorf("more than %d steps of %s between start and end; use a longer step", MaxPoints, req.Step)
	default:
		return nil
	}
}

// tabular makes a vector, or of a range query a matrix, of any value.
func tabular(v parser.Value, ranged bool) (parser.Value, error) {
	switch v := v.(type) {
	case promql.Vector, promql.Matrix:
		return v, nil
	case promql.Scalar:
		if ranged {
			return promql.Matrix{{Floats: []promql.FPoint{{T: v.T, F: v.V}}}}, nil
		}
		return promql.Vector{{T: v.T, F: v.V, Metric: labels.EmptyLabels()}}, nil
	default:
		return nil, fmt.Errorf("%w: an expression of type %s has no series to answer with", storeapi.ErrBadRequest, v.Type())
	}
}

// sourceError wraps the sentinel which carries the kind of error over the wire,
// unless the error of a store below has brought one along.
func sourceError(err error) error {
	for _, sentinel := range []error{storeapi.ErrBadRequest, storeapi.ErrLimit, storeapi.ErrUnavailable, storeapi.ErrPartial, storeapi.ErrCorrupt} {
		if errors.Is(err, sentinel) {
			return err
		}
	}
	var (
		e       *Error
		samples promql.ErrTooManySamples
	)
	switch {
	case !errors.As(err, &e):
		return err
	case errors.As(err, &samples):
		return fmt.Errorf("%w: %w", storeapi.ErrLimit, err)
	case e.Kind == BadQuery, e.Kind == BadRequest, e.Kind == Execution:
		return fmt.Errorf("%w: %w", storeapi.ErrBadRequest, err)
	case e.Kind == Timeout, e.Kind == Unavailable:
		return fmt.Errorf("%w: %w", storeapi.ErrUnavailable, err)
	default:
		return err
	}
}

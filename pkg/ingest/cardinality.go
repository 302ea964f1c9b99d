package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/tenant"
)

// registerCardinality adds the questions about what costs memory, with the
// paths, parameters and answers of Mimir's API. They are about the heads of this
// process: with a ring of more nodes than copies ask each.
func (in *Ingester) registerCardinality(mux *http.ServeMux) {
	for path, answer := range map[string]func(context.Context, cardinalityRequest) (any, error){
		"label_names": func(ctx context.Context, q cardinalityRequest) (any, error) {
			return in.owned.CardinalityLabelNames(ctx, q.tenant, q.matchers, q.limit)
		},
		"label_values": func(ctx context.Context, q cardinalityRequest) (any, error) {
			return in.owned.CardinalityLabelValues(ctx, q.tenant, q.names, q.matchers, q.limit)
		},
		"active_series": func(ctx context.Context, q cardinalityRequest) (any, error) {
			return in.owned.ActiveSeries(ctx, q.tenant, q.matchers, maxActiveSeries)
		},
	} {
		h := in.cardinality(answer)
		mux.HandleFunc("GET /api/v1/cardinality/"+path, h)
		mux.HandleFunc("POST /api/v1/cardinality/"+path, h)
	}
}

// maxActiveSeries bounds one answer. Mimir's has no limit either that a caller could set.
const maxActiveSeries = 100_000

// Limits of the parameter limit, as in Mimir.
const (
	defaultCardinality = 20
	maxCardinality     = 500
)

type cardinalityRequest struct {
	tenant   tenant.ID
	names    []string // of labels
	matchers []*labels.Matcher
	limit    int
}

func (in *Ingester) cardinality(answer func(context.Context, cardinalityRequest) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := in.cardinalityRequest(r)
		if err != nil {
			writeError(w, http.StatusBadRequest, "bad_data", err)
			return
		}
		out, err := answer(r.Context(), q)
		switch {
		case errors.Is(err, storeapi.ErrBadRequest):
			writeError(w, http.StatusBadRequest, "bad_data", err)
		case err != nil:
			writeError(w, http.StatusServiceUnavailable, "unavailable", err)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(out) // the client is gone otherwise
		}
	}
}

func (in *Ingester) cardinalityRequest(r *http.Request) (q cardinalityRequest, err error) {
	if q.tenant, err = in.cfg.Tenant.OfRequest(r); err != nil {
		return q, err
	}
	if err := r.ParseForm(); err != nil {
		return q, err
	}
	q.names, q.limit = r.Form["label_names[]"], defaultCardinality
	if s := r.Form.Get("limit"); s != "" {
		if q.limit, err = strconv.Atoi(s); err != nil || q.limit < 1 || q.limit > maxCardinality {
			return q, fmt.Errorf("limit: want 1 to %d, got %q", maxCardinality, s)
		}
	}
	if s := r.Form.Get("selector"); s != "" {
		if q.matchers, err = parser.NewParser(parser.Options{}).ParseMetricSelector(s); err != nil {
			return q, fmt.Errorf("selector %q: %w", s, err)
		}
	}
	return q, nil
}

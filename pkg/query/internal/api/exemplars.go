package api

import (
	"net/http"

	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql/parser"
)

// queryExemplars lists the exemplars of the series that an expression selects.
// Grafana asks with milliseconds where seconds are meant: a time in the year
// 57000 is as good as any other, and has no exemplars.
func (a *API) queryExemplars(r *http.Request) (answer, error) {
	start, err := optionalTime(r, "start", minTime)
	if err != nil {
		return answer{}, err
	}
	end, err := optionalTime(r, "end", maxTime)
	if err != nil {
		return answer{}, err
	}
	if end.Before(start) {
		return answer{}, bad("end timestamp must not be before start timestamp")
	}
	query := r.Form.Get("query")
	expr, err := a.parser.ParseExpr(query)
	if err != nil {
		return answer{}, bad("%w", err)
	}
	partial, err := boolParam(r, "partial_response", a.cfg.ExemplarPartial)
	if err != nil {
		return answer{}, err
	}
	if len(parser.ExtractSelectors(expr)) == 0 {
		return answer{}, nil // as Prometheus: no content
	}
	if a.parts.Exemplars == nil {
		return answer{encode: func(s *stream) error { return s.exemplars(nil) }}, nil
	}
	found, warn, err := a.parts.Exemplars.Exemplars(r.Context(), query, timestamp.FromTime(start), timestamp.FromTime(end), partial)
	if err != nil {
		return answer{}, err
	}
	return answer{encode: func(s *stream) error { return s.exemplars(found) }, warn: warn}, nil
}

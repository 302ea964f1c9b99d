package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/httputil"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/firnline/firnline/pkg/query/internal/engine"
)

// query answers an instant query.
func (a *API) query(r *http.Request) (answer, error) {
	limit, err := limitParam(r)
	if err != nil {
		return answer{}, err
	}
	at, err := optionalTime(r, "time", a.now())
	if err != nil {
		return answer{}, err
	}
	return a.exec(r, engine.Request{Start: at, End: at}, limit, time.Duration(a.cfg.InstantResolution))
}

// queryRange answers a range query.
func (a *API) queryRange(r *http.Request) (answer, error) {
	limit, err := limitParam(r)
	if err != nil {
		return answer{}, err
	}
	var req engine.Request
	if req.Start, err = requiredTime(r, "start"); err != nil {
		return answer{}, err
	}
	if req.End, err = requiredTime(r, "end"); err != nil {
		return answer{}, err
	}
	if req.End.Before(req.Start) {
		return answer{}, badParam("end", errors.New("end timestamp must not be before start time"))
	}
	span := req.End.Sub(req.Start)
	if req.Step, err = a.stepParam(r, span); err != nil {
		return answer{}, err
	}
	if span/req.Step > engine.MaxPoints {
		return answer{}, bad("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)")
	}
	return a.exec(r, req, limit, req.Step/5)
}

// stepParam reads the step. Where none is said it is a 250th of the range, which suits a screen.
func (a *API) stepParam(r *http.Request, span time.Duration) (time.Duration, error) {
	s := r.Form.Get("step")
	if s == "" {
		return max((span / 250).Truncate(time.Second), time.Duration(a.cfg.DefaultStep)), nil
	}
	step, err := parseDuration(s)
	if err == nil && step <= 0 {
		err = errors.New("zero or negative query resolution step widths are not accepted. Try a positive integer")
	}
	if err != nil {
		return 0, badParam("step", err)
	}
	return step, nil
}

// exec evaluates a query whose times are set, with the parameters that both kinds have.
// auto is the resolution that max_source_resolution=auto means.
func (a *API) exec(r *http.Request, req engine.Request, limit int, auto time.Duration) (answer, error) {
	var err error
	if req.Timeout, err = timeoutParam(r); err != nil {
		return answer{}, err
	}
	if err := engineParams(r, &req); err != nil {
		return answer{}, err
	}
	opts, err := a.dataOptions(r, auto)
	if err != nil {
		return answer{}, err
	}
	req.Expr = r.Form.Get("query")
	req.MaxResolution = opts.MaxResolution

	ctx := httputil.ContextFromRequest(r.Context(), r)
	res, err := a.parts.Engine.Exec(ctx, a.parts.Data.Queryable(opts), req)
	if err != nil {
		return answer{}, err
	}
	value, notes := res.Value, res.Annotations
	if cut, shorter := firstOf(value, limit); shorter {
		value = cut
		truncated(&notes)
	}
	qs, err := statsParam(r, res.Stats)
	if err != nil {
		notes.Add(err)
	}
	return answer{
		encode: func(s *stream) error { return s.result(value, qs) },
		notes:  notes,
		query:  req.Expr,
		close:  res.Close,
	}, nil
}

// engineParams reads what a request sets of the engine.
func engineParams(r *http.Request, req *engine.Request) error {
	if s := r.Form.Get("lookback_delta"); s != "" {
		d, err := parseDuration(s)
		if err != nil {
			return bad("error parsing lookback delta duration: %w", err)
		}
		req.Lookback = d
	}
	const header = "X-Prometheus-Use-Start-Timestamps"
	if s := r.Header.Get(header); s != "" {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return bad("error parsing %s header: %w", header, err)
		}
		req.UseStartTimestamps = &b
	}
	req.PerStepStats = r.Form.Get("stats") == "all"
	return nil
}

// statsParam returns the statistics when the request asks for them; the error
// is a warning about the value by which it does.
func statsParam(r *http.Request, all *stats.Statistics) (stats.QueryStats, error) {
	switch s := r.Form.Get("stats"); s {
	case "":
		return nil, nil
	case "true", "all":
		return stats.NewQueryStats(all), nil
	default:
		return stats.NewQueryStats(all), fmt.Errorf(
			"value %q for parameter \"stats\" is deprecated and will be rejected in the next major release, use \"true\" or \"all\"", s)
	}
}

// firstOf returns the first series of a value, and whether there were more.
func firstOf(v parser.Value, limit int) (parser.Value, bool) {
	if limit <= 0 {
		return v, false
	}
	switch v := v.(type) {
	case promql.Matrix:
		if len(v) > limit {
			return v[:limit], true
		}
	case promql.Vector:
		if len(v) > limit {
			return v[:limit], true
		}
	}
	return v, false
}

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/query/internal/engine"
	"github.com/firnline/firnline/pkg/query/internal/querier"
	"github.com/firnline/firnline/pkg/storeapi"
)

// The widest range of time that Prometheus' API speaks of. They also stand for
// an absent start and end, and clients send them formatted, with years that time.Parse can't read.
var (
	minTime = time.Unix(math.MinInt64/1000+62135596801, 0).UTC()
	maxTime = time.Unix(math.MaxInt64/1000-62135596801, 999999999).UTC()
)

// parseForm reads the parameters of URL and body, each of which may have any of them.
func parseForm(r *http.Request, maxBytes int) error {
	err := r.ParseForm()
	if err == nil {
		err = r.ParseMultipartForm(int64(maxBytes)) // the body is bounded by as much, so no file is written
		if errors.Is(err, http.ErrNotMultipart) {
			err = nil
		}
	}
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooLarge):
		return bad("request body of more than %d bytes (--web.max-request-bytes)", maxBytes)
	default:
		return bad("error parsing form values: %w", err)
	}
}

// parseTime reads seconds since the epoch, rounded to milliseconds, or RFC 3339.
func parseTime(s string) (time.Time, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		seconds, fraction := math.Modf(f)
		nanos := math.Round(fraction*1000) / 1000 * float64(time.Second)
		return time.Unix(int64(seconds), int64(nanos)).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, t := range []time.Time{minTime, maxTime} {
		if s == t.Format(time.RFC3339Nano) {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
}

// optionalTime reads a parameter that may be absent.
func optionalTime(r *http.Request, name string, absent time.Time) (time.Time, error) {
	s := r.Form.Get(name)
	if s == "" {
		return absent, nil
	}
	t, err := parseTime(s)
	if err != nil {
		return time.Time{}, badParam(name, fmt.Errorf("invalid time value for '%s': %w", name, err))
	}
	return t, nil
}

// requiredTime reads a parameter that must be there.
func requiredTime(r *http.Request, name string) (time.Time, error) {
	t, err := parseTime(r.Form.Get(name))
	if err != nil {
		return time.Time{}, badParam(name, err)
	}
	return t, nil
}

// parseDuration reads seconds or a duration in Prometheus' syntax.
func parseDuration(s string) (time.Duration, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		nanos := f * float64(time.Second)
		if !(nanos >= math.MinInt64 && nanos < math.MaxInt64) { // NaN is neither
			return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", s)
		}
		return time.Duration(nanos), nil
	}
	if d, err := model.ParseDuration(s); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", s)
}

// limitParam reads the limit of an answer; 0 is none.
func limitParam(r *http.Request) (int, error) {
	s := r.Form.Get("limit")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err == nil && n < 0 {
		err = errors.New("limit must be non-negative")
	}
	if err != nil {
		return 0, badParam("limit", err)
	}
	return n, nil
}

// oneMore is the limit to ask stores for, so that a cut can be told from an exact fit.
func oneMore(limit int) int {
	if limit > 0 && limit < math.MaxInt {
		return limit + 1
	}
	return limit
}

// timeoutParam reads how long a request may take; 0 is not said.
func timeoutParam(r *http.Request) (time.Duration, error) {
	s := r.Form.Get("timeout")
	if s == "" {
		return 0, nil
	}
	d, err := parseDuration(s)
	if err == nil && d <= 0 {
		err = fmt.Errorf("timeout must be positive, got %s", d)
	}
	if err != nil {
		return 0, badParam("timeout", err)
	}
	return d, nil
}

// matchParam reads the selectors of match[].
func (a *API) matchParam(r *http.Request) ([][]*labels.Matcher, error) {
	sets, err := a.parser.ParseMetricSelectors(r.Form["match[]"])
	if err != nil {
		return nil, err
	}
	for _, set := range sets {
		if !selective(set) {
			return nil, errors.New("match[] must contain at least one non-empty matcher")
		}
	}
	return sets, nil
}

// selective tells whether one of the matchers refuses series without its label.
func selective(set []*labels.Matcher) bool {
	for _, m := range set {
		if m != nil && !m.Matches("") {
			return true
		}
	}
	return false
}

// boolParam reads a parameter that is true or false.
func boolParam(r *http.Request, name string, absent bool) (bool, error) {
	s := r.Form.Get(name)
	if s == "" {
		return absent, nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, badParam(name, fmt.Errorf("%q is neither true nor false", s))
	}
	return b, nil
}

// dataOptions reads how data is to be selected: the parameters that Thanos adds.
// auto is the coarsest resolution meant by max_source_resolution=auto.
func (a *API) dataOptions(r *http.Request, auto time.Duration) (querier.Options, error) {
	var (
		o   querier.Options
		err error
	)
	if o.Dedup, err = boolParam(r, "dedup", true); err != nil {
		return o, err
	}
	if o.PartialResponse, err = boolParam(r, "partial_response", a.cfg.PartialResponse); err != nil {
		return o, err
	}
	if _, err = boolParam(r, "analyze", false); err != nil {
		return o, err
	}
	if err = engine.CheckEngineName(r.Form.Get("engine")); err != nil {
		return o, badParam("engine", err)
	}
	if o.MaxResolution, err = a.resolutionParam(r, auto); err != nil {
		return o, err
	}
	if o.Shard, err = shardParam(r); err != nil {
		return o, err
	}
	if o.StoreMatchers, err = a.storeMatchParam(r); err != nil {
		return o, err
	}
	o.ReplicaLabels = a.parts.ReplicaLabels
	if named := append(r.Form["replicaLabels[]"], r.Form["replicaLabels"]...); len(named) > 0 {
		o.ReplicaLabels = named
	}
	return o, nil
}

// resolutionParam reads the coarsest resolution that data may have.
func (a *API) resolutionParam(r *http.Request, auto time.Duration) (time.Duration, error) {
	const name = "max_source_resolution"
	switch s := r.Form.Get(name); {
	case s == "auto", s == "" && a.cfg.AutoDownsampling:
		return auto, nil
	case s == "":
		return 0, nil
	default:
		d, err := parseDuration(s)
		if err != nil {
			return 0, badParam(name, fmt.Errorf("%q must be auto, 0s, 5m, 1h or another duration", s))
		}
		if d < 0 {
			return 0, badParam(name, fmt.Errorf("%s is negative", d))
		}
		return d, nil
	}
}

func (a *API) storeMatchParam(r *http.Request) ([][]*labels.Matcher, error) {
	var sets [][]*labels.Matcher
	for _, s := range r.Form["storeMatch[]"] {
		set, err := a.parser.ParseMetricSelector(s)
		if err != nil {
			return nil, badParam("storeMatch[]", err)
		}
		sets = append(sets, set)
	}
	return sets, nil
}

// shardParam reads the part of all series that is wanted.
func shardParam(r *http.Request) (*storeapi.Shard, error) {
	const name = "shard_info"
	s := r.Form.Get(name)
	if s == "" {
		return nil, nil
	}
	var v struct {
		Index  int64    `json:"shard_index"`
		Total  int64    `json:"total_shards"`
		By     bool     `json:"by"`
		Labels []string `json:"labels"`
	}
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		return nil, badParam(name, err)
	}
	if v.Index < 0 || v.Total < 0 || v.Total > 0 && v.Index >= v.Total {
		return nil, badParam(name, fmt.Errorf("shard_index %d of total_shards %d does not exist", v.Index, v.Total))
	}
	return &storeapi.Shard{Index: v.Index, Total: v.Total, By: v.By, Labels: v.Labels}, nil
}

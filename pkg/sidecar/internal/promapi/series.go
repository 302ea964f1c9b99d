package promapi

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// Range selects series: by matchers, with samples in [Mint, Maxt] ms.
type Range struct {
	Mint, Maxt int64
	Matchers   []*labels.Matcher // none: all series, where a call allows that
	Limit      int               // at most so many results; 0 is no limit
}

// forever is beyond any time Prometheus can have; the API's own default then is wider.
const forever = int64(1) << 52

// params returns the range as parameters of the HTTP API.
func (r Range) params() url.Values {
	v := url.Values{}
	if r.Mint > -forever {
		v.Set("start", seconds(r.Mint))
	}
	if r.Maxt < forever {
		v.Set("end", seconds(r.Maxt))
	}
	if len(r.Matchers) > 0 {
		v.Set("match[]", Selector(r.Matchers))
	}
	if r.Limit > 0 {
		v.Set("limit", strconv.Itoa(r.Limit))
	}
	return v
}

// seconds formats ms as the seconds of the HTTP API, exactly.
func seconds(ms int64) string {
	sign := ""
	if ms < 0 {
		sign, ms = "-", -ms
	}
	return fmt.Sprintf("%s%d.%03d", sign, ms/1000, ms%1000)
}

// Selector returns matchers as a PromQL selector. The API refuses one that
// matches the empty label set; it then gets a condition that only series
// without a metric name fail, which Prometheus does not scrape.
func Selector(matchers []*labels.Matcher) string {
	all := slices.Clone(matchers)
	if !slices.ContainsFunc(all, func(m *labels.Matcher) bool { return !m.Matches("") }) {
		all = append(all, labels.MustNewMatcher(labels.MatchNotEqual, model.MetricNameLabel, ""))
	}
	parts := make([]string, len(all))
	for i, m := range all {
		parts[i] = m.String()
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// Series calls yield for the labels of each series in the range, in no order
// and without external labels. It decodes one series at a time; an error of
// yield ends it.
func (c *Client) Series(ctx context.Context, r Range, yield func(labels.Labels) error) error {
	q := call{method: http.MethodPost, path: "/api/v1/series", params: r.params()}
	resp, err := c.do(ctx, q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(c.bounded(resp.Body))
	if err := seekData(dec); err != nil {
		return c.garbled(ctx, q, err)
	}
	for dec.More() {
		var lset labels.Labels
		if err := dec.Decode(&lset); err != nil {
			return c.garbled(ctx, q, err)
		}
		if err := yield(lset); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil { // the bracket: without it the list was cut
		return c.garbled(ctx, q, err)
	}
	return nil
}

// seekData reads up to and into the list under the key "data".
func seekData(dec *json.Decoder) error {
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("no JSON object: %w", orUnexpected(err))
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		if key == "data" {
			if t, err := dec.Token(); err != nil || t != json.Delim('[') {
				return fmt.Errorf("data is no list: %w", orUnexpected(err))
			}
			return nil
		}
		var skipped json.RawMessage
		if err := dec.Decode(&skipped); err != nil {
			return err
		}
	}
	return fmt.Errorf("no data: %w", errUnexpected)
}

// LabelNames returns the label names of the series in the range, without
// external labels.
func (c *Client) LabelNames(ctx context.Context, r Range) (names, warnings []string, err error) {
	warnings, err = c.get(ctx, call{method: http.MethodPost, path: "/api/v1/labels", params: r.params()}, &names)
	return names, warnings, err
}

// LabelValues returns the values that a label has on the series in the range,
// without external labels.
func (c *Client) LabelValues(ctx context.Context, name string, r Range) (values, warnings []string, err error) {
	path := "/api/v1/label/" + url.PathEscape(escapeName(name)) + "/values"
	warnings, err = c.get(ctx, call{method: http.MethodGet, path: path, params: r.params()}, &values)
	return values, warnings, err
}

// escapeName writes a label name that is not of the classic form as the path of
// the API expects it.
func escapeName(name string) string {
	if model.LegacyValidation.IsValidLabelName(name) {
		return name
	}
	return model.EscapeName(name, model.ValueEncodingEscaping)
}

// AllTime is the range of all series that Prometheus has.
func AllTime() Range { return Range{Mint: math.MinInt64, Maxt: math.MaxInt64} }

package prove

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/prompb"
)

// HTTP is a store that takes remote write and answers Prometheus' API.
type HTTP struct {
	write *remoteapi.API
	read  v1.API
}

// NewHTTP makes the clients: writes go to the URL of remote write.
func NewHTTP(writeURL string, read v1.API, client *http.Client) (*HTTP, error) {
	u, err := url.Parse(writeURL)
	if err != nil {
		return nil, err
	}
	path := u.Path
	u.Path = ""
	w, err := remoteapi.NewAPI(u.String(), remoteapi.WithAPIPath(path), remoteapi.WithAPIHTTPClient(client),
		remoteapi.WithAPIBackoff(remoteapi.BackoffConfig{MaxRetries: 1}))
	if err != nil {
		return nil, err
	}
	return &HTTP{w, read}, nil
}

// Write implements Store.
func (h *HTTP) Write(ctx context.Context, id string, all []Series) error {
	req := &prompb.WriteRequest{}
	for _, s := range all {
		ts := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: s.Kind}, {Name: "id", Value: id}, {Name: "n", Value: strconv.Itoa(s.N)}}}
		for _, v := range s.Samples {
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: v.T, Value: v.V})
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	_, err := h.write.Write(ctx, remoteapi.WriteV1MessageType, req)
	return err
}

// Window implements Store.
func (h *HTTP) Window(ctx context.Context, id, kind string, end time.Time, window time.Duration) ([]Series, error) {
	v, warnings, _, err := h.read.Query(ctx, fmt.Sprintf("%s{id=%q}[%s]", kind, id, model.Duration(window)), end)
	return whole(kind, v, warnings, err)
}

// Steps implements Store.
func (h *HTTP) Steps(ctx context.Context, id, kind string, r v1.Range) ([]Series, error) {
	v, warnings, _, err := h.read.QueryRange(ctx, fmt.Sprintf("%s{id=%q}", kind, id), r)
	return whole(kind, v, warnings, err)
}

// whole takes an answer that says nothing of missing parts. One that does is no
// silent hole, and nothing can be compared with it.
func whole(kind string, v model.Value, warnings v1.Warnings, err error) ([]Series, error) {
	if err != nil {
		return nil, err
	}
	if len(warnings) > 0 {
		return nil, fmt.Errorf("the answer says that it lacks something: %s", strings.Join(warnings, "; "))
	}
	return fromMatrix(kind, v)
}

func fromMatrix(kind string, v model.Value) ([]Series, error) {
	m, ok := v.(model.Matrix)
	if !ok {
		return nil, fmt.Errorf("the answer is a %s, not a matrix", v.Type())
	}
	var out []Series
	for _, s := range m {
		n, err := strconv.Atoi(string(s.Metric["n"]))
		if err != nil {
			return nil, fmt.Errorf("a series without its number: %s", s.Metric)
		}
		one := Series{Kind: kind, N: n}
		for _, p := range s.Values {
			one.Samples = append(one.Samples, Sample{int64(p.Timestamp), float64(p.Value)})
		}
		out = append(out, one)
	}
	return out, nil
}

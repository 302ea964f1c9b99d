package stack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// Posted is the answer to a request that has headers.
type Posted struct {
	Status int
	Header http.Header
	Body   string // its beginning
}

// Write sends series by remote write, which the Prometheus must have been started
// to take (--web.enable-remote-write-receiver).
func (p *Prometheus) Write(ctx context.Context, series []prompb.TimeSeries) error {
	a, err := PostSeries(ctx, p.URL+"/api/v1/write", nil, series)
	if err != nil {
		return fmt.Errorf("write to %s: %w", p.Name, err)
	}
	if a.Status/100 != 2 {
		return fmt.Errorf("write to %s: %d: %s", p.Name, a.Status, a.Body)
	}
	return nil
}

// PostSeries sends series by remote write 1.0. The header is added to its own.
func PostSeries(ctx context.Context, url string, header http.Header, series []prompb.TimeSeries) (Posted, error) {
	body, err := (&prompb.WriteRequest{Timeseries: series}).Marshal()
	if err != nil {
		return Posted{}, fmt.Errorf("encode series: %w", err)
	}
	with := http.Header{"Content-Type": {"application/x-protobuf"}, "Content-Encoding": {"snappy"}}
	for k, v := range header {
		with[k] = v
	}
	return Post(ctx, url, with, snappy.Encode(nil, body))
}

// Post sends a body as it is.
func Post(ctx context.Context, url string, header http.Header, body []byte) (Posted, error) {
	return send(ctx, http.MethodPost, url, header, body)
}

// GetAs asks with a header, such as a tenant's.
func GetAs(ctx context.Context, url string, header http.Header) (Posted, error) {
	return send(ctx, http.MethodGet, url, header, nil)
}

func send(ctx context.Context, method, url string, header http.Header, body []byte) (Posted, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return Posted{}, err
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return Posted{}, err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 10_000))
	return Posted{Status: resp.StatusCode, Header: resp.Header, Body: string(said)}, err
}

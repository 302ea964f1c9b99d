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

// Write sends series by remote write, which the Prometheus must have been started
// to take (--web.enable-remote-write-receiver).
func (p *Prometheus) Write(ctx context.Context, series []prompb.TimeSeries) error {
	body, err := (&prompb.WriteRequest{Timeseries: series}).Marshal()
	if err != nil {
		return fmt.Errorf("encode for %s: %w", p.Name, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL+"/api/v1/write", bytes.NewReader(snappy.Encode(nil, body)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("write to %s: %w", p.Name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("write to %s: %s: %s", p.Name, resp.Status, said)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

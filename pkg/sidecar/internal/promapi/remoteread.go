package promapi

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"github.com/firnline/firnline/pkg/storeapi"
)

// What a remote read answers with, by content type.
const (
	typeStreamed = "application/x-streamed-protobuf"
	typeSamples  = "application/x-protobuf"
)

// Read is the answer of a remote read: one of its two is set. Close it.
type Read struct {
	Frames  *Frames              // streamed chunks, sorted by the labels that Prometheus stores
	Samples []*prompb.TimeSeries // the fall-back, whole and in no order

	body io.Closer
}

// Close ends the transfer.
func (r *Read) Close() error { return r.body.Close() }

// Read asks for the samples of the series that match in [mint, maxt], ms: as
// streamed chunks or, of a server that can't, as samples in one bounded answer.
// Labels come with Prometheus' external labels, over which, unlike in the
// StoreAPI, the series' own labels have won. It returns once the answer begins,
// and the transfer ends with ctx.
func (c *Client) Read(ctx context.Context, r Range) (*Read, error) {
	q := call{method: http.MethodPost, path: "/api/v1/read"}
	req, err := c.readRequest(ctx, q, r)
	if err != nil {
		return nil, fmt.Errorf("prometheus %s: %s: %w", c.URL(), q, err)
	}
	resp, err := c.send(req, q)
	if err != nil {
		return nil, err
	}
	switch typ := resp.Header.Get("Content-Type"); {
	case strings.HasPrefix(typ, typeStreamed):
		return &Read{Frames: c.newFrames(resp.Body), body: resp.Body}, nil
	case strings.HasPrefix(typ, typeSamples):
		defer resp.Body.Close()
		samples, err := c.readSamples(resp.Body)
		if err != nil {
			return nil, c.garbled(ctx, q, err)
		}
		return &Read{Samples: samples, body: resp.Body}, nil
	default:
		resp.Body.Close()
		return nil, fmt.Errorf("prometheus %s: %s: %w: content type %q is no remote read", c.URL(), q, storeapi.ErrUnavailable, typ)
	}
}

func (c *Client) readRequest(ctx context.Context, q call, r Range) (*http.Request, error) {
	pb := &prompb.ReadRequest{
		Queries: []*prompb.Query{{
			StartTimestampMs: r.Mint,
			EndTimestampMs:   r.Maxt,
			Matchers:         make([]*prompb.LabelMatcher, len(r.Matchers)),
		}},
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{
			prompb.ReadRequest_STREAMED_XOR_CHUNKS,
			prompb.ReadRequest_SAMPLES,
		},
	}
	for i, m := range r.Matchers {
		pb.Queries[0].Matchers[i] = &prompb.LabelMatcher{Type: matchType(m.Type), Name: m.Name, Value: m.Value}
	}
	raw, err := pb.Marshal()
	if err != nil {
		return nil, err
	}
	body := bytes.NewReader(snappy.Encode(nil, raw))
	req, err := http.NewRequestWithContext(ctx, q.method, c.base.JoinPath(q.path).String(), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("X-Prometheus-Remote-Read-Version", "0.1.0")
	return req, nil
}

func matchType(t labels.MatchType) prompb.LabelMatcher_Type {
	switch t {
	case labels.MatchNotEqual:
		return prompb.LabelMatcher_NEQ
	case labels.MatchRegexp:
		return prompb.LabelMatcher_RE
	case labels.MatchNotRegexp:
		return prompb.LabelMatcher_NRE
	default:
		return prompb.LabelMatcher_EQ
	}
}

// readSamples decodes an answer that isn't streamed, of bounded size both packed and unpacked.
func (c *Client) readSamples(body io.Reader) ([]*prompb.TimeSeries, error) {
	packed, err := io.ReadAll(c.bounded(body))
	if err != nil {
		return nil, err
	}
	size, err := snappy.DecodedLen(packed)
	if err != nil {
		return nil, err
	}
	if int64(size) > c.limits.ResponseBytes {
		return nil, fmt.Errorf("%w: answer unpacks to %d bytes, allowed are %d (%s)", storeapi.ErrLimit, size, c.limits.ResponseBytes, FlagResponseBytes)
	}
	raw, err := snappy.Decode(nil, packed)
	if err != nil {
		return nil, err
	}
	var resp prompb.ReadResponse
	if err := resp.Unmarshal(raw); err != nil {
		return nil, err
	}
	if len(resp.Results) != 1 {
		return nil, fmt.Errorf("%d results for one query: %w", len(resp.Results), errUnexpected)
	}
	return resp.Results[0].Timeseries, nil
}

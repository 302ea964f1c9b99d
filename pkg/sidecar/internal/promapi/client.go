// Package promapi talks to one Prometheus over its HTTP API and its remote read.
//
// Every body is bounded. Errors say which call failed against which server and
// why, and wrap the sentinels of storeapi, so that a caller can hand them on. A
// Client is safe for concurrent use; a Frames stream belongs to one goroutine.
package promapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/firnline/firnline/pkg/storeapi"
)

// Limits bound what a Client takes in.
type Limits struct {
	ResponseBytes int64 // of a whole response body
	FrameBytes    int64 // of one frame of a streamed remote read
}

// Names of the flags behind Limits, for error messages.
const (
	FlagResponseBytes = "--prometheus.max-response-bytes"
	FlagFrameBytes    = "--prometheus.max-frame-bytes"
)

// Client asks one Prometheus.
type Client struct {
	base   *url.URL
	http   *http.Client
	limits Limits
}

// New makes a Client for the Prometheus below base, which may have a path
// (--web.route-prefix).
func New(base *url.URL, client *http.Client, limits Limits) *Client {
	return &Client{base: base, http: client, limits: limits}
}

// CloseIdleConnections closes the connections that no call uses.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

// URL returns the address of Prometheus without credentials.
func (c *Client) URL() string { return c.base.Redacted() }

// call is one request of the HTTP API.
type call struct {
	method string
	path   string // below the base, escaped
	params url.Values
}

func (c call) String() string { return c.method + " " + c.path }

// do sends a call and returns the response of status 200.
func (c *Client) do(ctx context.Context, q call) (*http.Response, error) {
	u := c.base.JoinPath(q.path)
	var body io.Reader
	if q.method == http.MethodPost {
		body = strings.NewReader(q.params.Encode())
	} else {
		u.RawQuery = q.params.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, q.method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("prometheus %s: %s: %w", c.URL(), q, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return c.send(req, q)
}

// send sends a request and turns what is no answer into an error.
func (c *Client) send(req *http.Request, q call) (*http.Response, error) {
	req.Header.Set("User-Agent", "firnline-sidecar")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.failed(req.Context(), q, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, fmt.Errorf("prometheus %s: %s: %w", c.URL(), q, statusError(resp))
}

// failed gives an error of transport its context. A call that its own caller
// has ended reports that.
func (c *Client) failed(ctx context.Context, q call, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("prometheus %s: %s: %w", c.URL(), q, cause)
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // its text would repeat method and address
	}
	return fmt.Errorf("prometheus %s: %s: %w: %w", c.URL(), q, storeapi.ErrUnavailable, err)
}

// maxErrorBytes is how much of an error's body is worth reading.
const maxErrorBytes = 4 << 10

// statusError reads the body of a response that is no success: the error of the
// HTTP API or plain text.
func statusError(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes)) // half an error text is better than none
	text := strings.TrimSpace(string(body))
	var env struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &env) == nil && env.Error != "" {
		text = env.Error
	}
	if text == "" {
		text = http.StatusText(resp.StatusCode)
	}
	switch code := resp.StatusCode; {
	case strings.Contains(text, "exceeded sample limit"):
		return fmt.Errorf("%w: %s (Prometheus' --storage.remote.read-sample-limit)", storeapi.ErrLimit, text)
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return fmt.Errorf("%w: status %d: %s; give credentials with --prometheus.http-client", storeapi.ErrUnavailable, code, text)
	case code == http.StatusNotFound:
		return fmt.Errorf("%w: status 404: %s; does --prometheus.url lead to a Prometheus, with its --web.route-prefix?", storeapi.ErrUnavailable, text)
	case code == http.StatusBadRequest:
		return fmt.Errorf("%w: %s", storeapi.ErrBadRequest, text)
	case code/100 == 5:
		return fmt.Errorf("%w: status %d: %s", storeapi.ErrUnavailable, code, text)
	default:
		return fmt.Errorf("status %d: %s", code, text)
	}
}

// get sends a call and decodes "data" of its answer into out. It returns the warnings.
func (c *Client) get(ctx context.Context, q call, out any) ([]string, error) {
	resp, err := c.do(ctx, q)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	env := struct {
		Data     any      `json:"data"`
		Warnings []string `json:"warnings"`
	}{Data: out}
	if err := json.NewDecoder(c.bounded(resp.Body)).Decode(&env); err != nil {
		return nil, c.garbled(ctx, q, err)
	}
	return env.Warnings, nil
}

// garbled tells apart why an answer could not be decoded.
func (c *Client) garbled(ctx context.Context, q call, err error) error {
	switch {
	case errors.Is(err, storeapi.ErrLimit):
		return fmt.Errorf("prometheus %s: %s: %w", c.URL(), q, err)
	case context.Cause(ctx) != nil:
		return fmt.Errorf("prometheus %s: %s: %w", c.URL(), q, context.Cause(ctx))
	default:
		return fmt.Errorf("prometheus %s: %s: %w: answer can't be read: %w", c.URL(), q, storeapi.ErrUnavailable, err)
	}
}

// bounded returns a reader that fails when r has more than the allowed bytes.
func (c *Client) bounded(r io.Reader) io.Reader {
	return &boundedReader{r: r, left: c.limits.ResponseBytes, max: c.limits.ResponseBytes}
}

// boundedReader fails with ErrLimit, where an io.LimitedReader would end early as if all were well.
type boundedReader struct {
	r         io.Reader
	left, max int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, fmt.Errorf("%w: answer has more than %d bytes (%s)", storeapi.ErrLimit, b.max, FlagResponseBytes)
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	return n, err
}

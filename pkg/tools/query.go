package tools

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// Endpoint is a server with Prometheus' HTTP API.
type Endpoint struct {
	URL     string
	Headers map[string]string // with each request, such as a tenant's
}

// ErrUnreachable marks a server that could not be asked.
var ErrUnreachable = errors.New("the server can't be reached")

// API makes the client of an endpoint.
func (e Endpoint) API() (v1.API, error) {
	client, err := api.NewClient(api.Config{Address: e.URL, RoundTripper: withHeaders{e.Headers, api.DefaultRoundTripper}})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.URL, err)
	}
	return v1.NewAPI(client), nil
}

// Client makes an HTTP client that sends the endpoint's headers.
func (e Endpoint) Client(timeout time.Duration) *http.Client {
	return &http.Client{Transport: withHeaders{e.Headers, api.DefaultRoundTripper}, Timeout: timeout}
}

// withHeaders adds headers to each request.
type withHeaders struct {
	headers map[string]string
	next    http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (h withHeaders) RoundTrip(r *http.Request) (*http.Response, error) {
	if len(h.headers) > 0 {
		r = r.Clone(r.Context())
		for k, v := range h.headers {
			r.Header.Set(k, v)
		}
	}
	resp, err := h.next.RoundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return resp, nil
}

// Answer is what a query came to.
type Answer struct {
	Value    model.Value
	Warnings []string
}

// Instant evaluates a query at one moment.
func (e Endpoint) Instant(ctx context.Context, query string, at time.Time) (Answer, error) {
	c, err := e.API()
	if err != nil {
		return Answer{}, err
	}
	v, warnings, infos, err := c.Query(ctx, query, at)
	return e.answer(v, append(warnings, infos...), err)
}

// Range evaluates a query over time.
func (e Endpoint) Range(ctx context.Context, query string, r v1.Range) (Answer, error) {
	c, err := e.API()
	if err != nil {
		return Answer{}, err
	}
	v, warnings, infos, err := c.QueryRange(ctx, query, r)
	return e.answer(v, append(warnings, infos...), err)
}

// answer words the error of a server for people.
func (e Endpoint) answer(v model.Value, warnings v1.Warnings, err error) (Answer, error) {
	var said *v1.Error
	if errors.As(err, &said) {
		return Answer{}, fmt.Errorf("%s: %s: %s", e.URL, said.Type, said.Msg)
	}
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", e.URL, err)
	}
	return Answer{v, warnings}, nil
}

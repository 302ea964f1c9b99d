package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"
)

// httpSD asks URLs for endpoints, in Prometheus' HTTP service discovery. The
// ring of ingesters answers in it: each node lists all. Not safe for concurrent use.
type httpSD struct {
	urls     []string
	interval time.Duration
	timeout  time.Duration // of one answer
	client   ClientConfig
	asked    time.Time
	answers  map[string][]string // addresses, by URL, as last told
}

// Bounds of one answer.
const (
	httpSDTimeout  = 5 * time.Second
	httpSDMaxBytes = 1 << 20
)

// refresh asks all URLs when it is time to. One that does not answer keeps the
// endpoints it told before.
func (h *httpSD) refresh(ctx context.Context, now time.Time) error {
	if now.Sub(h.asked) < h.interval {
		return nil
	}
	h.asked = now
	var errs []error
	for _, url := range h.urls {
		addresses, err := h.ask(ctx, url)
		if err != nil {
			errs = append(errs, fmt.Errorf("endpoints of %s: %w", url, err))
			continue
		}
		if h.answers == nil {
			h.answers = map[string][]string{}
		}
		h.answers[url] = addresses
	}
	return errors.Join(errs...)
}

func (h *httpSD) ask(ctx context.Context, url string) (_ []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answered %s", resp.Status)
	}
	content, err := io.ReadAll(io.LimitReader(resp.Body, httpSDMaxBytes+1))
	switch {
	case err != nil:
		return nil, err
	case len(content) > httpSDMaxBytes:
		return nil, fmt.Errorf("answered more than %d bytes", httpSDMaxBytes)
	}
	return parseFileSD(content)
}

// specs returns the endpoints of all URLs, each once.
func (h *httpSD) specs() []spec {
	all := map[string]bool{}
	for _, addresses := range h.answers {
		for _, a := range addresses {
			all[a] = true
		}
	}
	var specs []spec
	for _, a := range slices.Sorted(maps.Keys(all)) {
		specs = append(specs, spec{address: a, client: h.client, file: true})
	}
	return specs
}

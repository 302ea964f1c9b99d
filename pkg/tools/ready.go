package tools

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// ErrNotReady marks a server that answers, and can't work yet.
var ErrNotReady = errors.New("not ready")

const (
	readyAnswer = 64 << 10 // of an answer, at most, in bytes
	readyAgain  = 500 * time.Millisecond
)

// Ready asks a component, or Prometheus, whether it can work. The error tells what
// it waits for and wraps ErrNotReady, or ErrUnreachable.
func (e Endpoint) Ready(ctx context.Context) error {
	u, err := url.Parse(e.URL)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath("-", "ready").String(), nil)
	if err != nil {
		return err
	}
	transport := probeTransport(u.Hostname())
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: withHeaders{e.Headers, transport}}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, readyAnswer))
	if err != nil {
		return fmt.Errorf("%s: %w: %w", req.URL, ErrUnreachable, err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusServiceUnavailable:
		text := strings.TrimPrefix(strings.TrimSpace(string(body)), "not ready, ")
		return fmt.Errorf("%s: %w: %s", req.URL, ErrNotReady, oneLine(text))
	}
	return fmt.Errorf("%s: %w: it answers %s; the address may lack a path, or --header credentials", req.URL, ErrNotReady, resp.Status)
}

// oneLine makes a server's list one line.
func oneLine(text string) string {
	head, list, found := strings.Cut(text, "\n")
	if !found {
		return text
	}
	return head + " " + strings.ReplaceAll(list, "\n", "; ")
}

// WaitReady asks until the answer is yes, or for so long.
func (e Endpoint) WaitReady(ctx context.Context, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var last error // that is not of the time being over
	for {
		err := e.Ready(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %s: %w", wait, last)
		case <-time.After(readyAgain):
		}
	}
}

// probeTransport checks certificates but on loopback, where nobody else can answer
// and where they are for the names that others use.
func probeTransport(host string) *http.Transport {
	ip := net.ParseIP(host)
	loopback := host == "localhost" || ip != nil && ip.IsLoopback()
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: loopback}, //nolint:gosec // see above
	}
}

// Package s3proxy stands between a client and an S3 store and makes it fail in
// the ways that stores really do. It passes signed requests on untouched, knows
// what each asks for and of which key, logs them, and applies faults to those a
// rule matches. It is for tests on loopback and safe for concurrent use.
package s3proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Op is what a request asks of the store.
type Op string

// The operations told apart.
const (
	Get       Op = "GET"
	GetRange  Op = "GETRANGE"
	Put       Op = "PUT"
	Head      Op = "HEAD"
	Delete    Op = "DELETE"
	List      Op = "LIST"
	Multipart Op = "MULTIPART" // any request of a multipart upload
	Other     Op = "OTHER"     // of the bucket itself
)

// Target is the store behind the proxy, with credentials for the faults that
// write in place of the client.
type Target struct {
	Addr                 string // host:port, plain HTTP
	AccessKey, SecretKey string
}

// Request is an entry of the log.
type Request struct {
	Op          Op
	Key         string // for List the prefix
	Start, End  time.Time
	Status      int   // as the client saw it; 0: no answer
	Bytes       int64 // of the body sent to the client
	Conditional bool  // carried If-Match or If-None-Match
}

// Proxy is a running proxy. Close it.
type Proxy struct {
	target Target
	plain  *minio.Client
	client *http.Client
	srv    *http.Server
	addr   string
	done   chan struct{}

	mu struct {
		sync.Mutex
		rules []*rule
		log   []Request
	}
}

// Start listens on a free loopback port.
func Start(target Target) (*Proxy, error) {
	plain, err := minio.New(target.Addr, &minio.Options{Creds: credentials.NewStaticV4(target.AccessKey, target.SecretKey, "")})
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", target.Addr, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		target: target,
		plain:  plain,
		// Idle connections are given up before the store does that, which could meet a request on its way.
		client: &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64, IdleConnTimeout: 5 * time.Second}},
		addr:   l.Addr().String(),
		done:   make(chan struct{}),
	}
	p.srv = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(p.done)
		_ = p.srv.Serve(l)
	}()
	return p, nil
}

// Addr is the host:port to give to clients as the endpoint.
func (p *Proxy) Addr() string { return p.addr }

// Close cuts all connections.
func (p *Proxy) Close() {
	_ = p.srv.Close()
	<-p.done
	p.client.CloseIdleConnections()
}

// Log returns the requests ended so far, in the order of their end.
func (p *Proxy) Log() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Request(nil), p.mu.log...)
}

// Reset empties the log.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.log = nil
}

// ServeHTTP passes one request on, with the fault of the first rule that wants it.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req := Request{Op: opOf(r), Key: keyOf(r), Start: time.Now(), Conditional: conditional(r)}
	cw := &countingWriter{ResponseWriter: w}
	defer func() {
		req.End, req.Status, req.Bytes = time.Now(), cw.status, cw.bytes
		p.mu.Lock()
		p.mu.log = append(p.mu.log, req)
		p.mu.Unlock()
	}()
	p.serve(cw, r, p.faultFor(req))
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request, f Fault) {
	if f.Reached != nil {
		f.Reached()
	}
	if f.Until != nil {
		select {
		case <-f.Until:
		case <-r.Context().Done():
			return
		}
	}
	if !sleep(r.Context(), f.Delay) {
		return
	}
	switch {
	case f.Hang:
		<-r.Context().Done()
		return
	case f.Status != 0:
		_, _ = io.Copy(io.Discard, r.Body)
		writeError(w, f.Status)
		return
	case f.StoreNothing, f.StoreLess > 0, f.DropConditions && opOf(r) == Put:
		p.putInstead(w, r, f)
		return
	}
	p.forward(w, r, f)
}

// forward sends the request on as it is, so that its signature holds: the Host
// header, too, stays the one the client signed.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, f Fault) {
	out := r.Clone(r.Context())
	out.URL = &url.URL{Scheme: "http", Host: p.target.Addr, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	out.RequestURI = ""
	resp, err := p.client.Do(out)
	if err != nil {
		writeError(w, http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	if f.LoseAnswer {
		_, _ = io.Copy(io.Discard, resp.Body)
		panic(http.ErrAbortHandler)
	}
	p.answer(w, resp, f)
}

func opOf(r *http.Request) Op {
	q := r.URL.Query()
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case q.Has("uploads") || q.Has("uploadId"):
		return Multipart
	case r.Method == http.MethodPost && q.Has("delete"):
		return Delete
	case key == "" && r.Method == http.MethodGet && (q.Has("list-type") || q.Has("prefix") || q.Has("delimiter")):
		return List
	case key == "":
		return Other
	case r.Method == http.MethodGet && r.Header.Get("Range") != "":
		return GetRange
	case r.Method == http.MethodGet:
		return Get
	case r.Method == http.MethodPut:
		return Put
	case r.Method == http.MethodHead:
		return Head
	case r.Method == http.MethodDelete:
		return Delete
	}
	return Other
}

func keyOf(r *http.Request) string {
	if opOf(r) == List {
		return r.URL.Query().Get("prefix")
	}
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return key
}

func conditional(r *http.Request) bool {
	return r.Header.Get("If-Match") != "" || r.Header.Get("If-None-Match") != ""
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// writeError answers as S3 does. 503 is SlowDown, which clients take for throttling.
func writeError(w http.ResponseWriter, status int) {
	code := map[int]string{http.StatusServiceUnavailable: "SlowDown", http.StatusForbidden: "AccessDenied", http.StatusNotFound: "NoSuchKey"}[status]
	if code == "" {
		code = "InternalError"
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>injected by a test</Message></Error>`, code)
}

type countingWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (c *countingWriter) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.bytes += int64(n)
	return n, err
}

func (c *countingWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

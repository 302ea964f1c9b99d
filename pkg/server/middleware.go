package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// secured sets headers that keep browsers from doing harm. A handler may overwrite them.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// recovered answers 500 when a handler panics, or cuts the connection when part
// of an answer is out, since a client must not take that for the whole.
func recovered(next http.Handler, log *slog.Logger, m *metrics) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(cause) // a handler's way to cut the connection
			}
			m.panics.WithLabelValues("http").Inc()
			log.ErrorContext(r.Context(), "panic in an HTTP handler", "path", clip(r.URL.Path), "panic", cause, "stack", string(debug.Stack()))
			if sw, ok := w.(*statusWriter); ok && sw.code != 0 {
				panic(http.ErrAbortHandler)
			}
			http.Error(w, "internal error, see the log for request "+RequestID(r.Context()), http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}

// observed counts, times and logs requests.
func observed(next http.Handler, s *Server) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		probe := builtin(r.URL.Path)
		if !probe {
			s.metrics.httpInflight.Inc()
			defer s.metrics.httpInflight.Dec()
		}
		port := localPort(r)
		path := r.URL.Path // the mux may hand a changed one on
		logs := s.logged.http.applies(httpLogKey(port, path), httpLogKey(0, path))
		if logs && s.logged.http.start {
			s.logHTTP(r, slog.LevelDebug, "request started")
		}
		start := time.Now()
		sw := &statusWriter{ResponseWriter: w}
		defer func() { // a panic passes through
			took := time.Since(start)
			code := sw.status()
			route := routeOf(r)
			s.metrics.httpRequests.WithLabelValues(route, knownMethod(r.Method), strconv.Itoa(code)).Inc()
			observe(r.Context(), s.metrics.httpDuration.WithLabelValues(route, knownMethod(r.Method)), took)
			if logs {
				level := slog.LevelDebug
				if code >= 500 {
					level = slog.LevelError
				}
				s.logHTTP(r, level, "request finished", "status", code, "bytes", sw.bytes, "duration", took)
			}
		}()
		next.ServeHTTP(sw, r)
	})
}

func (s *Server) logHTTP(r *http.Request, level slog.Level, msg string, more ...any) {
	if level < s.logged.http.level {
		return
	}
	user, _, _ := r.BasicAuth()
	s.log.Log(r.Context(), level, msg, append([]any{"protocol", "http", "method", knownMethod(r.Method), "uri", clip(r.URL.RequestURI()),
		"remote", r.RemoteAddr, "user", clip(user), "user_agent", clip(r.UserAgent())}, more...)...)
}

// observe records a duration, with the trace as its exemplar where there is one.
func observe(ctx context.Context, h prometheus.Observer, took time.Duration) {
	sc := trace.SpanContextFromContext(ctx)
	if e, ok := h.(prometheus.ExemplarObserver); ok && sc.IsSampled() {
		e.ObserveWithExemplar(took.Seconds(), prometheus.Labels{"trace_id": sc.TraceID().String()})
		return
	}
	h.Observe(took.Seconds())
}

// knownMethod keeps made-up methods out of metrics.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodPatch:
		return m
	}
	return "other"
}

// statusWriter remembers what was answered.
type statusWriter struct {
	http.ResponseWriter
	code  int // 0: nothing written yet
	bytes int64
}

// status is the code the client has seen or will see.
func (w *statusWriter) status() int {
	if w.code == 0 {
		return http.StatusOK
	}
	return w.code
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(code int) {
	if w.code == 0 && code >= 200 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *statusWriter) Write(b []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Flush implements http.Flusher, which streaming handlers ask for.
func (w *statusWriter) Flush() {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush() // as http.Flusher: no error to give
}

// Unwrap lets http.ResponseController reach what is below.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

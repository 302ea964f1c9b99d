package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

// newHTTP builds the HTTP server around the mux. From the outside in: request
// id, headers, trace, metrics and log, authentication, panics, route.
func (s *Server) newHTTP() *http.Server {
	var h http.Handler = recovered(s.mux, s.log, s.metrics)
	h = newGuard(s.web.get, h)
	h = observed(h, s)
	h = traced(h)
	h = otelhttp.NewHandler(h, "http",
		otelhttp.WithTracerProvider(s.tracing.Provider),
		otelhttp.WithPropagators(s.tracing.Propagator),
		otelhttp.WithFilter(func(r *http.Request) bool { return !builtin(r.URL.Path) }),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method + " " + routeOf(r) }),
	)
	h = forced(h)
	h = secured(h)
	h = identified(h)

	c := s.cfg.HTTP
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: time.Duration(c.ReadHeaderTimeout),
		ReadTimeout:       time.Duration(c.ReadTimeout),
		WriteTimeout:      time.Duration(c.WriteTimeout),
		IdleTimeout:       time.Duration(c.IdleTimeout),
		MaxHeaderBytes:    int(c.MaxHeader),
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // what clients do wrong while connecting
	}
	if s.tls {
		srv.TLSConfig = following(tlsOf(s.web))
		srv.Protocols = new(http.Protocols)
		srv.Protocols.SetHTTP1(true)
		srv.Protocols.SetHTTP2(s.web.get().http2)
	}
	return srv
}

func (s *Server) serveHTTP(l net.Listener) error {
	var err error
	if s.tls {
		err = s.http.ServeTLS(l, "", "")
	} else {
		err = s.http.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve HTTP: %w", err)
}

func (s *Server) drainHTTP(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.cfg.HTTP.GracePeriod))
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close() // what it closes was given its time
		return fmt.Errorf("HTTP: --http-grace-period=%s: %w", s.cfg.HTTP.GracePeriod, err)
	}
	return nil
}

// handleBuiltin adds the routes that every component has.
func (s *Server) handleBuiltin() {
	s.mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "healthy") })
	s.mux.HandleFunc("GET /-/ready", s.handleReady)
	s.mux.HandleFunc("GET /ready", s.handleReady) // Mimir's name: probes go on as they were
	s.mux.Handle("POST /-/reload", http.NewCrossOriginProtection().Handler(http.HandlerFunc(s.handleReload)))
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(s.reg, promhttp.HandlerOpts{
		Registry: s.reg, EnableOpenMetrics: true, MaxRequestsInFlight: 16, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}))
	// Without cmdline, which would show secrets given by flag.
	s.mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	s.mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	s.mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	s.mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	s.mux.HandleFunc("GET /debug/pprof/cmdline", http.NotFound)
}

// handleReady answers 200, or 503 with one line for each thing waited for.
func (s *Server) handleReady(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	waiting := s.ready.waiting()
	if len(waiting) == 0 {
		fmt.Fprintln(w, "ready")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintf(w, "not ready, waiting for\n%s\n", strings.Join(waiting, "\n"))
}

// gated turns requests away when too many run.
func (s *Server) gated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.gate.enter() {
			s.metrics.refused.WithLabelValues("http").Inc()
			w.Header().Set("Retry-After", "1")
			http.Error(w, fmt.Sprintf("too many requests at once, limit %d (--http-max-concurrent-requests)", cap(s.gate)),
				http.StatusServiceUnavailable)
			return
		}
		defer s.gate.leave()
		next.ServeHTTP(w, r)
	})
}

// builtin tells paths that probes and scrapers ask for all the time.
func builtin(path string) bool {
	return strings.HasPrefix(path, "/-/") || path == "/metrics" || strings.HasPrefix(path, "/debug/")
}

// routeOf names the route that answered, known once the mux has seen the request.
func routeOf(r *http.Request) string {
	_, route, hasMethod := strings.Cut(r.Pattern, " ")
	switch {
	case r.Pattern == "":
		return "none"
	case hasMethod:
		return route
	}
	return r.Pattern
}

// localPort is the port that the request came in by.
func localPort(r *http.Request) uint16 {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok {
		return 0
	}
	return uint16(addr.Port)
}

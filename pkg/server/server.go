package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
)

// Server is the HTTP and the gRPC listener of a component.
type Server struct {
	cfg     Config
	log     *slog.Logger
	reg     *prometheus.Registry
	metrics *metrics
	tracing *Tracing
	logged  requestLogging

	mux      *http.ServeMux
	http     *http.Server
	web      *lastGood[*webConfig]
	tls      bool // HTTP listens with TLS
	gate     gate // of HTTP requests
	grpc     *grpc.Server
	grpcGate gate
	health   *health.Server

	ready   readiness
	reloads reloads
	sleep   func(time.Duration)

	// Taken by Listen; nil before. The first is that of the main address.
	httpListeners, grpcListeners []net.Listener
}

// New wires a Server and starts nothing; call Run. Config errors name their
// flag. reg gets the server's metrics and is what /metrics shows. The options
// go to the gRPC server, before its own.
func New(cfg Config, log *slog.Logger, reg *prometheus.Registry, tracing *Tracing, opts ...grpc.ServerOption) (*Server, error) {
	logged, err := cfg.requestLogging()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, log: log, reg: reg, metrics: newMetrics(reg), tracing: tracing, logged: logged,
		mux: http.NewServeMux(), gate: newGate(cfg.HTTP.MaxRequests), grpcGate: newGate(cfg.GRPC.MaxRequests),
		health: health.NewServer(), sleep: time.Sleep,
	}
	s.reloads.metrics, s.reloads.now = s.metrics, time.Now
	if s.web, err = newLastGood("web", s.loadWeb, log, s.metrics); err != nil {
		return nil, err
	}
	s.tls = s.web.get().tls != nil
	s.AddReloader("web configuration", func(context.Context) error { return s.web.reload() })
	if s.grpc, err = s.newGRPC(opts); err != nil {
		return nil, err
	}
	s.http = s.newHTTP()
	s.handleBuiltin()
	s.metrics.reloadedAll(nil, time.Now())
	return s, nil
}

// Handle routes requests that match a pattern of http.ServeMux to h. At most
// Config.HTTP.MaxRequests of them run at once; the rest is answered with 503.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, s.gated(h)) }

// GRPC is where services are registered.
func (s *Server) GRPC() *grpc.Server { return s.grpc }

// AddCheck makes readiness depend on ask, whose error says what is waited for.
// It is asked at each probe and must be cheap.
func (s *Server) AddCheck(name string, ask func() error) { s.ready.add(name, ask) }

// AddReloader adds to what Reload does. On an error the reloader keeps what was
// in force; the error says file and line.
func (s *Server) AddReloader(name string, run func(context.Context) error) { s.reloads.add(name, run) }

// Reload loads all configurations again. Calls at the same time share the work.
func (s *Server) Reload(ctx context.Context) error { return s.reloads.do(ctx) }

// TLS tells whether HTTP is spoken with TLS.
func (s *Server) TLS() bool { return s.tls }

// HTTPAddr is where HTTP listens, after Listen.
func (s *Server) HTTPAddr() net.Addr { return s.httpListeners[0].Addr() }

// MaxMessage is the size of the largest message that gRPC reads.
func (s *Server) MaxMessage() int64 { return int64(s.cfg.GRPC.MaxMessage) }

// GRPCAddr is where gRPC listens, after Listen; nil with Config.HTTPOnly.
func (s *Server) GRPCAddr() net.Addr {
	if len(s.grpcListeners) == 0 {
		return nil
	}
	return s.grpcListeners[0].Addr()
}

// Listen takes the ports. Run does so itself if it has not been called.
// The error names the flag of each address that can't be had.
func (s *Server) Listen(ctx context.Context) error {
	http := append([]MoreAddress{{Flag: "http-address", Address: s.cfg.HTTP.Address}}, s.cfg.MoreHTTP...)
	var grpc []MoreAddress
	if !s.cfg.HTTPOnly {
		grpc = append([]MoreAddress{{Flag: "grpc-address", Address: s.cfg.GRPC.Address}}, s.cfg.MoreGRPC...)
	}
	var errs [2]error
	s.httpListeners, errs[0] = listenAll(ctx, http, s.cfg.HTTP.MaxConnections)
	s.grpcListeners, errs[1] = listenAll(ctx, grpc, s.cfg.GRPC.MaxConnections)
	err := errors.Join(errs[:]...)
	if err != nil {
		s.Close()
	}
	return err
}

// listenAll takes each address that is not empty. It returns what it could get with the errors.
func listenAll(ctx context.Context, addresses []MoreAddress, most int) ([]net.Listener, error) {
	var out []net.Listener
	var errs []error
	for _, a := range addresses {
		if a.Address == "" {
			continue
		}
		l, err := listen(ctx, a.Flag, a.Address, most)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if a.Services != nil {
			l = &narrowListener{l, a.Services}
		}
		out = append(out, l)
	}
	return out, errors.Join(errs...)
}

func listen(ctx context.Context, flag, addr string, most int) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("--%s: %s is in use by another process: stop that one, or choose another port", flag, addr)
	case err != nil:
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return netutil.LimitListener(l, most), nil
}

// Close gives the ports back when Run is not going to be called.
func (s *Server) Close() {
	for _, l := range append(s.httpListeners, s.grpcListeners...) {
		_ = l.Close() // nothing was accepted
	}
	s.httpListeners, s.grpcListeners = nil, nil
}

// Run serves until ctx is done, stops as the package comment says, and returns
// nil; or an error as soon as one listener fails. No goroutine outlives it, but
// for handlers that ignore their context beyond the grace period.
func (s *Server) Run(ctx context.Context) error {
	if s.httpListeners == nil {
		if err := s.Listen(ctx); err != nil {
			return err
		}
	}
	g, failed := errgroup.WithContext(ctx) // done when a listener fails, too
	var addresses []any
	for _, l := range s.httpListeners {
		addresses = append(addresses, "http", l.Addr().String())
		g.Go(func() error { return s.serveHTTP(l) })
	}
	for _, l := range s.grpcListeners {
		addresses = append(addresses, "grpc", l.Addr().String())
		g.Go(func() error { return s.serveGRPC(l) })
	}
	s.log.Info("listening", addresses...)
	g.Go(func() error { return s.watchHealth(failed) })
	g.Go(func() error {
		<-failed.Done()
		s.ready.stop()
		s.health.Shutdown()
		if ctx.Err() != nil {
			s.log.Info("stopping: not ready from now on", "delay", s.cfg.ShutdownDelay)
			s.sleep(time.Duration(s.cfg.ShutdownDelay))
		}
		s.drain(context.WithoutCancel(ctx))
		return nil
	})
	return g.Wait()
}

// drain lets requests finish, both protocols at the same time, and cuts the rest.
func (s *Server) drain(ctx context.Context) {
	var g errgroup.Group
	g.Go(func() error { return s.drainHTTP(ctx) })
	g.Go(func() error { return s.drainGRPC(ctx) })
	if err := g.Wait(); err != nil {
		s.log.Warn("grace period is over, requests were cut", "err", err)
		return
	}
	s.log.Info("all requests finished")
}

// loadWeb reads the web configuration. Whether there is TLS can't change while listening.
func (s *Server) loadWeb() (*webConfig, []string, error) {
	c, files, err := loadWebConfig(s.cfg.HTTP.WebConfig)
	if err == nil && s.web != nil && (c.tls != nil) != s.tls {
		err = fmt.Errorf("--http.config: %s: turning TLS on or off needs a restart", s.cfg.HTTP.WebConfig)
	}
	return c, files, err
}

// tlsOf picks the TLS configuration out of a web configuration.
func tlsOf(g *lastGood[*webConfig]) func() *tls.Config {
	return func() *tls.Config { return g.get().tls }
}

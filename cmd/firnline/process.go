package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"

	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/common/version"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"

	"github.com/firnline/firnline/pkg/server"
	"github.com/firnline/firnline/pkg/storeapi"
)

// base is the configuration that every component has.
type base struct {
	log     logConfig
	memory  memoryConfig
	server  server.Config
	tracing server.TracingConfig
}

func (b *base) parts() []configurer {
	return []configurer{&b.log, &b.memory, &b.server, &b.tracing}
}

// process is what a component's parts stand on.
type process struct {
	name    string
	short   string // what it does
	log     *slog.Logger
	bare    *slog.Logger // log without the component's name
	reg     *prometheus.Registry
	tracing *server.Tracing
	srv     *server.Server
	flags   map[string]string // in effect, secrets hidden
	config  string            // what was set, as YAML, secrets hidden
	talk    *board            // where the log goes

	beforeStop func(context.Context) error // what to do before the server stops; nil: nothing
	closers    []func() error              // what to do when nothing runs any more
}

// errFinished ends the process with success: a part has done all it was to do.
var errFinished = errors.New("finished")

// run builds the component and runs it until ctx ends.
func (c *component) run(ctx context.Context, f *flags, logTo io.Writer) (err error) {
	talk := newBoard(logTo)
	p := &process{name: c.name, short: c.short, bare: newLogger(c.base.log, talk), reg: newRegistry(), flags: f.effective(), talk: talk}
	p.log = p.bare.With("component", c.name)
	if p.config, err = f.config(); err != nil {
		return err
	}
	p.log.Info("starting", "version", version.Version, "revision", version.GetRevision(), "go", version.GoVersion,
		"cpus", runtime.GOMAXPROCS(0))
	f.warn(p.log)
	c.base.memory.apply(p.log)

	if p.tracing, err = server.NewTracing(ctx, c.base.tracing, "firnline-"+c.name, version.Version); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.tracing.Shutdown(context.WithoutCancel(ctx))) }()
	p.tracing.SetGlobal()
	if p.srv, err = server.New(c.base.server, p.log, p.reg, p.tracing, storeapi.ServerOptions()...); err != nil {
		return err
	}
	if err := p.srv.Listen(ctx); err != nil { // before other work: a port in use is the commonest mistake
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	parts, err := c.build(ctx, p)
	if err != nil {
		p.srv.Close()
		return err
	}
	if err := p.runAll(ctx, parts); err != nil && !errors.Is(err, errFinished) {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	p.log.Info("stopped")
	return nil
}

// atEnd adds what is to be done when nothing of the process runs any more.
func (p *process) atEnd(do func() error) { p.closers = append(p.closers, do) }

// close does what was added, the last first.
func (p *process) close() error {
	var errs []error
	for _, do := range slices.Backward(p.closers) {
		errs = append(errs, do())
	}
	return errors.Join(errs...)
}

// addChecks makes readiness depend on checks, in the order of their names.
func (p *process) addChecks(checks map[string]func() error) {
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		p.srv.AddCheck(name, checks[name])
	}
}

// dialOptions are those of connections to other processes: traces go along.
func (p *process) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler(
		otelgrpc.WithTracerProvider(p.tracing.Provider), otelgrpc.WithPropagators(p.tracing.Propagator)))}
}

// landing serves a page at / that tells of routes, for a component without a user interface.
func (p *process) landing(routes ...server.Route) error {
	return p.srv.Landing(server.Page{Title: "firnline " + p.name, About: p.short, Version: version.Info(), Routes: routes})
}

// runAll runs the server and the parts until ctx ends or one of them fails.
// run.Group interrupts in the order of Add: the server drains first, on parts that still work.
func (p *process) runAll(ctx context.Context, parts []runner) error {
	var g run.Group
	detached := context.WithoutCancel(ctx)
	leaving := make(chan struct{})
	g.Add(func() error { <-leaving; return nil }, func(error) { defer close(leaving); p.leave(detached) })
	srvCtx, stopServer := context.WithCancel(detached)
	drained := make(chan struct{})
	g.Add(func() error { defer close(drained); return p.srv.Run(srvCtx) }, func(error) { stopServer(); <-drained })
	for _, part := range parts {
		partCtx, stop := context.WithCancel(detached)
		g.Add(func() error { return untilDone(partCtx, part) }, func(error) { stop() })
	}
	hangup, stopHangup := context.WithCancel(detached)
	g.Add(func() error { return p.reloadOnHangup(hangup) }, func(error) { stopHangup() })
	sigCtx, stopWaiting := context.WithCancel(ctx)
	g.Add(func() error { <-sigCtx.Done(); return nil }, func(error) { stopWaiting() })
	return g.Run()
}

// leave does what is to be done while the server still serves.
func (p *process) leave(ctx context.Context) {
	if p.beforeStop == nil {
		return
	}
	if err := p.beforeStop(ctx); err != nil {
		p.log.Error("stopping all the same", "err", err)
	}
}

// untilDone runs a part; one that returns nil early has had nothing to do, which must not end the others.
func untilDone(ctx context.Context, part runner) error {
	if err := part.Run(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// reloadOnHangup reloads the configuration at each SIGHUP.
func (p *process) reloadOnHangup(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
		}
		if err := p.srv.Reload(ctx); err != nil {
			p.log.Error("reload: the configuration before stays in force", "err", err)
			continue
		}
		p.log.Info("reloaded")
	}
}

// newRegistry makes the registry with what is known of every process.
func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsGC, collectors.MetricsScheduler)),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		versioncollector.NewCollector("firnline"),
	)
	return reg
}

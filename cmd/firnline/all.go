package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact"
	"github.com/firnline/firnline/pkg/ingest"
	"github.com/firnline/firnline/pkg/query"
	"github.com/firnline/firnline/pkg/server"
	"github.com/firnline/firnline/pkg/sidecar"
	"github.com/firnline/firnline/pkg/store"
	"github.com/firnline/firnline/pkg/storeapi"
)

// newAll makes the command of these parts:
//
//	senders ──► HTTP, gRPC ──► ingest ──► bucket ◄──► compact
//	prometheus ◄── sidecar ─────┼───────►   ▲
//	                   ▲        ▲         store
//	HTTP API ──► query ┴────────┴───────────┘ called directly
func newAll() *component {
	a := &all{bkt: bucketConfig{required: true}}
	return &component{
		base: base{server: server.Config{
			MoreHTTP: []server.MoreAddress{
				{Flag: "query.address", Usage: "host:port where the same HTTP routes answer too, such as localhost:9090, where Grafana's data source looks for a Prometheus unless told otherwise. Empty: none."},
				{Flag: "remote-write.address", Usage: "host:port where the same HTTP routes answer too, such as 0.0.0.0:19291, the port that remote write has with Thanos. Empty: none."},
				{Flag: "otlp.http-address", Usage: "host:port where the same HTTP routes answer too, for OTLP senders that expect 4318. Empty: none."},
			},
			MoreGRPC: []server.MoreAddress{
				{Flag: "otlp.grpc-address", Services: []string{ingest.OTLPService}, Usage: "host:port where OTLP is taken over gRPC as on --grpc-address, and nothing else is, for senders that expect 4317. Empty: none."},
			},
		}},
		name:  "all",
		short: "Everything in one process, on a local folder: the way to begin",
		long: `Everything in one process: take metrics by remote write and OTLP, answer PromQL,
ship, compact and retain blocks; with --prometheus.url stand beside a Prometheus,
too. All data is in the one folder --data-dir, or in the bucket that is given.

It is the same code as the components, with the same flags. A flag that means
different things to them has the component's name before it. Move to components
of their own one at a time, on the same bucket.`,
		example: `  firnline all
  firnline all --data-dir=/var/lib/firnline --retention.resolution-raw=30d
  firnline all --objstore.config-file=bucket.yml
  firnline all --prometheus.url=http://localhost:9090 --sidecar.tsdb.path=/prometheus`,
		parts:    []configurer{&a.own, a.merged(), &a.bkt},
		everyday: flagsEveryday(),
		derive:   a.derive,
		build:    a.build,
	}
}

// all is everything in one process.
type all struct {
	own     allConfig
	sidecar sidecar.Config
	ingest  ingest.Config
	store   store.Config
	query   query.Config
	compact compact.Config
	deletes block.DeleteWatchConfig
	bkt     bucketConfig

	flags    *merged
	memory   uint64 // that limits go by
	liveOnly bool   // where Prometheus keeps its blocks is not known, so none is shipped
}

// Components, as their flags are called where names mean different things.
const (
	nameSidecar = "sidecar"
	nameIngest  = "ingest"
	nameStore   = "store"
	nameQuery   = "query"
	nameCompact = "compact"
)

// merged makes one configuration of those of the components.
func (a *all) merged() *merged {
	a.flags = &merged{
		parts: []mergedPart{
			{nameIngest, &a.ingest}, {nameStore, &a.store}, {nameQuery, &a.query}, {nameQuery, &a.deletes},
			{nameCompact, &a.compact}, {nameSidecar, whenUsed{&a.sidecar, a.hasSidecar}},
		},
		apart: flagsApart(), usage: flagUsages(), leaveOut: flagsLeftOut(), defaults: flagDefaults(),
		shown: map[string]string{"label": allLabel, "query.replica-label": allReplicaLabel},
	}
	for _, s := range shares() {
		a.flags.shown[s.flag] = autoSize
	}
	return a.flags
}

// whenUsed is the configuration of a component that may be left out.
type whenUsed struct {
	configurer
	used func() bool
}

// Validate implements configurer.
func (c whenUsed) Validate() error {
	if !c.used() {
		return nil
	}
	return c.configurer.Validate()
}

func (a *all) hasSidecar() bool { return a.sidecar.Prometheus.URL != "" }

// derive fills in what follows from the data folder and from the machine.
func (a *all) derive(f *flags) error {
	a.memory = machineMemory()
	a.compact.Wait = true
	errs := []error{a.contradictions(f), size(f, a.memory)}
	for name, value := range map[string]string{
		"label": allLabel, "query.replica-label": allReplicaLabel,
		"ingest.tsdb.path": filepath.Join(a.own.DataDir, "ingest"), "store.data-dir": filepath.Join(a.own.DataDir, "store"),
		"compact.data-dir": filepath.Join(a.own.DataDir, "compact"),
	} {
		errs = append(errs, f.derive(name, value))
	}
	if a.hasSidecar() && a.sidecar.TSDBPath == "" {
		a.liveOnly = true
		errs = append(errs, f.derive("sidecar.tsdb.path", filepath.Join(a.own.DataDir, "sidecar"))) // unused
	}
	if !a.bkt.Given() {
		text, err := yaml.Marshal(map[string]any{"type": "FILESYSTEM", "config": map[string]string{"directory": a.bucketDir()}})
		errs = append(errs, err)
		a.bkt.Objstore, a.own.localBucket = string(text), true
	}
	return errors.Join(errs...)
}

func (a *all) bucketDir() string { return filepath.Join(a.own.DataDir, "bucket") }

// contradictions lists flags that say nothing without others.
func (a *all) contradictions(f *flags) error {
	if a.hasSidecar() {
		return nil
	}
	var errs []error
	for name, owners := range a.flags.owners {
		if slices.Equal(owners, []string{nameSidecar}) && f.isSet(name) && name != "prometheus.url" {
			errs = append(errs, fmt.Errorf("--%s is of the sidecar, and there is none without --prometheus.url", name))
		}
	}
	slices.SortFunc(errs, func(x, y error) int { return strings.Compare(x.Error(), y.Error()) })
	return errors.Join(errs...)
}

// build makes the parts. The order is that of their running; the folder is given back last.
func (a *all) build(ctx context.Context, p *process) ([]runner, error) {
	lessGarbage()
	logSizes(p.log, p.flags, a.memory)
	dir, err := openAllDir(a.own.DataDir)
	if err != nil {
		return nil, err
	}
	p.atEnd(dir.Close)
	b, err := a.openBucket(ctx, p)
	if err != nil {
		return nil, err
	}
	check := newBucketCheck(b, p, true)
	p.srv.AddCheck("bucket", check.check)
	deletes := block.NewDeleteWatcher(a.deletes, b, a.part(nameQuery).log(p), p.registry(nameQuery))
	p.srv.AddCheck("deletes", deletes.Ready)
	parts := []runner{check, deletes}

	in, err := a.newIngest(p, b)
	if err != nil {
		return nil, err
	}
	gateway, err := a.newStore(p, b)
	if err != nil {
		return nil, err
	}
	compactor, err := a.newCompact(p, b)
	if err != nil {
		return nil, err
	}
	writer := runner(in)
	if every := a.own.SelfScrape; every > 0 {
		writer = fed{in, newSelfScrape(p, in.Handler(), in.Checks()["heads"], every)}
	}
	parts = append(parts, a.part(nameIngest).runner(writer), a.part(nameStore).runner(gateway), a.part(nameCompact).runner(compactor))
	local := []query.Local{{Name: nameIngest, Services: in.Services()}, {Name: nameStore, Services: gateway.Services()}}
	if a.hasSidecar() {
		s, err := a.newSidecar(p, b)
		if err != nil {
			return nil, err
		}
		parts, local = append(parts, a.part(nameSidecar).runner(s)), append(local, query.Local{Name: nameSidecar, Services: s.Services()})
	}
	q, err := a.newQuery(p, in.ForPeers(p.srv.GRPC()), local, deletes.Hider)
	if err != nil {
		return nil, err
	}
	p.srv.Handle("/", firstOf{[]routes{in.Handler(), compactor.Handler()}, q.Handler()})
	if err := a.landing(p); err != nil {
		return nil, err
	}
	return append(parts, q, greeting{p, a.own.DataDir, b.Target, a.own.localBucket}), nil
}

// part is the component of that name.
func (a *all) part(name string) part { return part{name, a.flags} }

// landing serves a page at /, but where the querier has a path of its own to lead to.
func (a *all) landing(p *process) error {
	if a.query.API.RoutePrefix != "" || a.query.API.ExternalPrefix != "" {
		return nil
	}
	return p.landing(slices.Concat(queryRoutes(), ingestRoutes(), compactRoutes())...)
}

// openBucket opens the bucket for all parts, and makes its folder where it is our own.
func (a *all) openBucket(ctx context.Context, p *process) (*bucket.Handle, error) {
	if a.own.localBucket {
		if err := os.MkdirAll(a.bucketDir(), 0o755); err != nil {
			return nil, fmt.Errorf("--data-dir=%s: %w", a.own.DataDir, block.NotWritable(err))
		}
	}
	return a.bkt.open(ctx, p)
}

func (a *all) newIngest(p *process, b *bucket.Handle) (*ingest.Ingester, error) {
	cfg, part := a.ingest, a.part(nameIngest)
	address := p.srv.GRPCAddr().String()
	if g := cfg.Ring.Gossip; len(g.Join) == 0 && g.Bind == noGossip {
		// A ring of one needs no gossip, and nobody listens for it.
		self := reachable(address)
		cfg.Ring.Static.Hashrings, cfg.Ring.Static.LocalEndpoint = `[{"endpoints": [`+strconv.Quote(self)+`]}]`, self
	}
	in, err := ingest.New(cfg, ingest.Parts{Bucket: b, Address: address, Dial: p.dialOptions(), MaxMessage: p.srv.MaxMessage(), Log: part.log(p), Metrics: p.registry(nameIngest)})
	if err != nil {
		return nil, part.error(err)
	}
	p.addChecks(part.checks(in.Checks()))
	p.beforeStop = func(ctx context.Context) error { return part.error(in.Leave(ctx)) }
	p.srv.AddReloader("ingest limits and forwarding rules", in.Reload)
	in.Register(p.srv.GRPC())
	return in, nil
}

func (a *all) newStore(p *process, b *bucket.Handle) (*store.Store, error) {
	part := a.part(nameStore)
	s, err := store.New(a.store, b, part.log(p), p.registry(nameStore))
	if err == nil {
		p.srv.AddCheck("store", part.check(s.Ready))
	}
	return s, part.error(err)
}

func (a *all) newCompact(p *process, b *bucket.Handle) (*closingCompactor, error) {
	part := a.part(nameCompact)
	c, err := compact.New(a.compact, compact.Parts{Bucket: b, Log: part.log(p), Metrics: p.registry(nameCompact), Fault: b.FaultPoint})
	if err != nil {
		return nil, part.error(err)
	}
	p.srv.AddCheck("compact", part.check(c.Ready))
	p.srv.AddReloader("retention policy", func(context.Context) error { return c.Reload() })
	return &closingCompactor{c}, nil
}

// closingCompactor gives its folder back when it is told to stop.
type closingCompactor struct{ *compact.Compactor }

// Run implements runner.
func (c *closingCompactor) Run(ctx context.Context) error {
	return errors.Join(c.Compactor.Run(ctx), c.Close())
}

func (a *all) newSidecar(p *process, b *bucket.Handle) (*sidecar.Sidecar, error) {
	var to block.Bucket // nil: ship nothing
	if !a.liveOnly {
		to = b
	} else {
		p.log.Warn("blocks of Prometheus are not shipped, only its live data is answered from: give its folder by --sidecar.tsdb.path")
	}
	part := a.part(nameSidecar)
	s, err := sidecar.New(a.sidecar, to, part.log(p), p.registry(nameSidecar))
	if err == nil {
		p.addChecks(part.checks(s.Checks()))
	}
	return s, part.error(err)
}

func (a *all) newQuery(p *process, to grpc.ServiceRegistrar, local []query.Local, hider func() *block.Hider) (*query.Query, error) {
	parts := queryParts(p, hider)
	parts.Local = local
	log := a.part(nameQuery).log(p)
	q, err := query.New(a.query, parts, log, p.registry(nameQuery))
	if err != nil {
		return nil, err
	}
	p.srv.AddCheck("endpoints", q.Ready)
	p.srv.AddReloader("endpoints", func(context.Context) error { return q.Reload() })
	storeapi.Register(to, q.Services(), log)
	return q, nil
}

// routes is a mux that can be asked whether it has a route.
type routes interface {
	http.Handler
	Handler(*http.Request) (http.Handler, string)
}

// firstOf answers by the first that has a route for a request, else by the
// querier. What both an ingester and the querier answer is the querier's: it asks all.
type firstOf struct {
	first []routes
	query http.Handler
}

// ServeHTTP implements http.Handler.
func (h firstOf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, mux := range h.first {
		if _, pattern := mux.Handler(r); pattern != "" && pattern != "GET /api/v1/status/tsdb" {
			mux.ServeHTTP(w, r)
			return
		}
	}
	h.query.ServeHTTP(w, r)
}

// registry is where a component of this process registers its metrics. Several use the
// same packages, so each of their metrics has the component's name as a label.
func (p *process) registry(component string) prometheus.Registerer {
	return prometheus.WrapRegistererWith(prometheus.Labels{"component": component}, p.reg)
}

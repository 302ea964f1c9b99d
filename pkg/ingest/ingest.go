// Package ingest takes samples from those who push them, by remote write and
// OTLP, and holds what it has acknowledged: replicated over a hash ring, in a
// TSDB a tenant, until it is shipped as blocks.
//
//	HTTP, gRPC ─► admit ─► wire ─► intake ─► replicate ─┬─► heads of this process ─► bucket
//	                                  │                 └─► other processes
//	                                  └─► forward ─► other receivers
//
// docs/architecture.md follows one sample through it.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/grafana/dskit/kv/codec"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/ingest/internal/admit"
	"github.com/firnline/firnline/pkg/ingest/internal/forward"
	"github.com/firnline/firnline/pkg/ingest/internal/ha"
	"github.com/firnline/firnline/pkg/ingest/internal/heads"
	"github.com/firnline/firnline/pkg/ingest/internal/intake"
	"github.com/firnline/firnline/pkg/ingest/internal/limits"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/ingest/internal/replicate"
	"github.com/firnline/firnline/pkg/ingest/internal/ring"
	"github.com/firnline/firnline/pkg/ingest/internal/wire"
	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/tenant"
)

// Parts are what an Ingester works with.
type Parts struct {
	Bucket  block.Bucket      // nil: ship nothing
	Address string            // of this process' gRPC server, host:port
	Dial    []grpc.DialOption // of connections to other nodes, beside their credentials
	// MaxMessage is the size of the largest message that this process' gRPC server reads.
	MaxMessage int64
	Log        *slog.Logger
	Metrics    prometheus.Registerer
}

// Ingester takes writes and answers reads.
type Ingester struct {
	cfg     Config
	log     *slog.Logger
	limits  *tenant.Limits[limits.Limits]
	gate    *admit.Gate
	peers   *peers
	tracker *ha.Tracker
	ring    rings
	owned   *heads.Heads // nil: a router
	owner   *owner       // the same, for writes
	path    pipeline

	maxMessage int64
	mu         sync.Mutex // of the ring's state
	leaving    bool
}

// rings is what both kinds of ring can do.
type rings interface {
	ring.Ring
	Run(ctx context.Context) error
	Status() ring.Status
	Instances() []ring.Instance
}

// New wires an Ingester and starts nothing; call Run. The Config must be valid.
func New(cfg Config, p Parts) (*Ingester, error) {
	in := &Ingester{cfg: cfg, log: p.Log, maxMessage: p.MaxMessage, peers: &peers{certificates: cfg.Tenant.CertificateField != "", names: cfg.Peers, log: p.Log}}
	if err := cfg.Admit.ValidateMessage(p.MaxMessage); err != nil {
		return nil, err
	}
	var err error
	if in.limits, err = tenant.NewLimits(cfg.Limits, limits.Form(), p.Log, p.Metrics); err != nil {
		return nil, err
	}
	if err := in.newRing(p); err != nil {
		return nil, err
	}
	in.gate = admit.New(cfg.Admit, runtime.GOMAXPROCS(0), admit.NewProcessGauges(), p.Metrics)
	var local replicate.Owner
	if in.cfg.owns() {
		in.owned = heads.New(cfg.Heads, heads.Parts{Bucket: p.Bucket, Log: p.Log, Metrics: p.Metrics, Limits: in.headLimits, RingLabels: in.ringLabels,
			Memory: memory(), Crowded: func() fmt.Stringer { return in.gate.Crowded(seriesShare) }})
		in.owner = &owner{Owner: in.owned}
		local = in.owner
	}
	in.path = pipeline{
		decoder: wire.New(cfg.Wire, time.Now),
		intake: intake.New(cfg.Intake, in.limits, intake.Parts{Elect: in.tracker, Log: p.Log, Metrics: p.Metrics,
			Crowded: func() fmt.Stringer { return in.gate.Crowded(nameShare) }}),
		replicas: replicate.New(cfg.Owners, replicate.Parts{Ring: in.ring, Local: local, Dial: append(p.Dial, grpc.WithTransportCredentials(cfg.Client.Credentials())), Log: p.Log, Reg: p.Metrics, Now: time.Now, Away: in.away}),
		metrics:  newMetrics(p.Metrics),
	}
	in.path.forwarder, err = forward.New(cfg.Forward, filepath.Join(cfg.Heads.Dir, forwardDir), p.Log, p.Metrics)
	return in, err
}

// Shares of the memory watermark above which there is no more room: first for series that heads
// don't have, which cost a kilobyte each, then for those that the catalogs don't know, some 50
// bytes. Between them is what comes between two garbage collections: only these show what is in use.
const (
	seriesShare = 0.9
	nameShare   = 0.95
)

// memory is what this process may take.
func memory() heads.Memory {
	return heads.Memory{Limit: admit.NewProcessGauges().Limit(), Used: func() (live, held float64) {
		g := admit.NewProcessGauges()
		return g.Memory(), g.Held()
	}}
}

// forwardDir is where the queues lie below --tsdb.path. No tenant can have this name.
const forwardDir = "__forward"

// newRing makes the ring, and the tracker that shares its gossip.
func (in *Ingester) newRing(p Parts) error {
	if in.cfg.Ring.Static.Given() {
		s, err := ring.NewStatic(in.cfg.Ring, p.Log, p.Metrics)
		if err != nil {
			return err
		}
		if in.cfg.Ring.Static.LocalEndpoint == "" {
			in.cfg.Role = roleRouter // as in Thanos
		}
		in.ring = s
		in.tracker = ha.New(nil, p.Log, p.Metrics)
		return nil
	}
	g, err := ring.NewGossip(in.cfg.Ring, ring.Parts{
		Address: p.Address, Dir: in.cfg.Heads.Dir, Router: !in.cfg.owns(),
		ShardSize: func(id tenant.ID) int { return in.limits.Of(id).ShardSize },
		Codecs:    []codec.Codec{ha.Codec{}},
		Log:       p.Log, Reg: p.Metrics, Now: time.Now,
	})
	if err != nil {
		return err
	}
	in.ring = g
	client, err := g.Client(ha.Codec{})
	if err != nil {
		return err
	}
	in.tracker = ha.New(client, p.Log, p.Metrics)
	return nil
}

// headLimits are the limits that heads look after.
func (in *Ingester) headLimits(id tenant.ID) heads.Limits {
	l := in.limits.Of(id)
	out := heads.Limits{MaxSeries: l.HeadSeriesLimit, MaxSeriesPerMetric: l.MaxSeriesPerMetric, StartTimestamps: l.StartTimestamps}
	if l.OutOfOrderWindow > 0 {
		out.OutOfOrderWindow = new(l.OutOfOrderWindow)
	}
	return out
}

// ringLabels are external labels that a hashring file gives a tenant's data.
func (in *Ingester) ringLabels(id tenant.ID) labels.Labels {
	if s, ok := in.ring.(*ring.Static); ok {
		return s.ExternalLabels(id)
	}
	return labels.EmptyLabels()
}

// Checks tell what is waited for before writes are taken.
func (in *Ingester) Checks() map[string]func() error {
	out := map[string]func() error{"ring": func() error {
		_, err := in.ring.View(tenant.Default)
		if refused, ok := errors.AsType[*refuse.Error](err); ok && refused.Reason == refuse.UnknownTenant {
			return nil // hashrings may list others only
		}
		if err != nil {
			return err
		}
		return in.away()
	}}
	if in.owned != nil {
		out["heads"] = in.owned.Ready
	}
	return out
}

// Services are what queriers may ask of what is not shipped yet. A router has none.
func (in *Ingester) Services() storeapi.Services {
	if in.owned == nil {
		return storeapi.Services{}
	}
	return in.owned.Services()
}

// Reload reads the limits, the forwarding rules and the hashrings again.
func (in *Ingester) Reload(ctx context.Context) error {
	err := errors.Join(in.limits.Reload(ctx), in.path.forwarder.Reload())
	if s, ok := in.ring.(*ring.Static); ok {
		err = errors.Join(err, s.Reload())
	}
	return err
}

// Run works until ctx is done: then what is on its way is finished, and all is
// closed. Requests must have ended by then.
func (in *Ingester) Run(ctx context.Context) error {
	// In the order of stopping: each leans on those after it.
	front := []job{in.gate.Run, in.path.intake.Run, in.limits.Run, in.tracker.Run, in.activate}
	stages := [][]job{front, {in.path.forwarder.Run}, {in.ring.Run}, {in.path.replicas.Run}}
	if in.owned != nil {
		stages = append(stages, []job{in.owned.Run})
	}
	defer in.path.decoder.Close()
	return runStages(ctx, stages)
}

// activate joins the ring as soon as the logs are replayed.
func (in *Ingester) activate(ctx context.Context) error {
	g, ok := in.ring.(*ring.Gossip)
	if !ok || in.owned == nil {
		return nil
	}
	if in.awaitHeads(ctx) != nil {
		return nil // told to stop
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.leaving {
		return nil
	}
	if err := g.Activate(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// away says why this node is not written to although it is there: it is
// starting or stopping.
func (in *Ingester) away() error {
	g, ok := in.ring.(*ring.Gossip)
	if !ok || in.owned == nil {
		return nil
	}
	for _, m := range g.Members() {
		if m.ID == g.ID() && m.State == ring.Active {
			return nil
		}
	}
	if err := in.owned.Ready(); err != nil {
		return fmt.Errorf("this node owns no series yet: %w", err)
	}
	return errors.New("this node owns no series for now: it is about to join or to leave the ring")
}

// awaitHeads returns when the logs are replayed.
func (in *Ingester) awaitHeads(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := in.owned.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// ringTimeout bounds what leaving waits for the ring.
const ringTimeout = 10 * time.Second

// Leave is called before the server stops: the ring learns that this node takes
// no more writes. With --ingest.leave-on-stop everything is then cut into
// blocks, shipped and verified, while it can still be read here.
func (in *Ingester) Leave(ctx context.Context) error {
	if in.owned == nil {
		return nil
	}
	if err := in.leaveRing(ctx); err != nil || !in.cfg.LeaveOnStop {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(in.cfg.LeaveTimeout))
	defer cancel()
	in.log.Info("leaving for good: cutting all samples into blocks and shipping them")
	in.owner.close()
	err := in.awaitHeads(ctx)
	if err == nil {
		err = in.owned.FlushAll(ctx)
	}
	if err != nil {
		return fmt.Errorf("leave (what is not shipped stays in --tsdb.path=%s): %w", in.cfg.Heads.Dir, err)
	}
	in.log.Info("everything is shipped and verified in the bucket")
	return nil
}

// leaveRing tells the ring, and keeps activate from joining it again.
func (in *Ingester) leaveRing(ctx context.Context) error {
	in.mu.Lock()
	in.leaving = true
	in.mu.Unlock()
	g, ok := in.ring.(*ring.Gossip)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, ringTimeout)
	defer cancel()
	return g.Leave(ctx, in.cfg.LeaveOnStop)
}

// Handler answers writes and what is asked about them.
func (in *Ingester) Handler() *http.ServeMux {
	mux := http.NewServeMux()
	if in.cfg.routes() {
		h := &writeHandler{tenants: in.cfg.Tenant, gate: in.gate, pipeline: &in.path, otlp: in.otlp, maxBody: in.maxBody}
		h.register(mux)
	}
	in.registerInsight(mux)
	return mux
}

// otlp is how a tenant's OTLP is translated.
func (in *Ingester) otlp(id tenant.ID) *wire.OTLP { return &in.limits.Of(id).OTLP }

// maxBody is the size of the largest body that a tenant may send.
func (in *Ingester) maxBody(id tenant.ID) int64 { return in.limits.Of(id).Request.SizeBytesLimit }

// What a process has none of, or a client must not have.
var (
	errRouter = errors.New("this node only routes: it owns no series")
	errStatic = errors.New("this ring comes from a hashring file: edit that")
	errNoPeer = errors.New("all_tenants=true is for those whose certificate has a name of --receive.peer-certificate-name")
)

package ring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/kv/codec"
	"github.com/grafana/dskit/kv/memberlist"
	"github.com/grafana/dskit/netutil"
	dskit "github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/tenant"
)

// ringKey is where the ring stands in the store of gossip.
const ringKey = "ingest"

// Parts are what a Gossip ring is made of.
type Parts struct {
	// Address is that of this node's gRPC server, host:port. Where the host is
	// missing or stands for all addresses, that of gossip is told to others.
	Address string
	Dir     string // tokens are kept here; an ingester's only
	Router  bool   // watch the ring and own nothing
	// ShardSize is over how many nodes a tenant's series are spread; 0: all. nil: all for everybody.
	ShardSize func(tenant.ID) int
	Codecs    []codec.Codec // of others who use Client

	Log *slog.Logger
	Reg prometheus.Registerer
	Now func() time.Time
}

// Gossip is the ring that nodes agree on among themselves. New ones own nothing
// until Activate is called.
type Gossip struct {
	cfg     GossipConfig
	rf      int
	id      string
	parts   Parts
	metrics *metrics

	kv     *memberlist.KV
	client kv.Client
	life   *dskit.BasicLifecycler // nil: this is a router
	own    *delegate

	alone  atomic.Pointer[time.Time] // until then a lone node is not believed to be alone; nil: Run has not begun
	placed atomic.Pointer[placed]

	mu   sync.Mutex // of what follows
	seen map[string]heartbeat
}

// heartbeat is the last one of a member. Members' clocks may differ from ours,
// so what counts is when theirs was seen to go on.
type heartbeat struct {
	theirs int64 // s
	seen   time.Time
}

// placed is the ring as last seen.
type placed struct {
	*placing
	whole *View // nil: nobody has tokens
	found bool  // somebody else was in the ring since Run began
	views viewCache
}

var _ Ring = (*Gossip)(nil)

// NewGossip wires a ring and joins nobody; call Run.
func NewGossip(cfg Config, parts Parts) (*Gossip, error) {
	g := &Gossip{cfg: cfg.Gossip, rf: cfg.ReplicationFactor, id: cfg.Gossip.ID, parts: parts, metrics: newMetrics(parts.Reg), seen: map[string]heartbeat{}}
	var err error
	if g.id == "" {
		if g.id, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("name of this node: %w; set --ring.instance-id", err)
		}
	}
	if g.kv, err = newKV(cfg.Gossip, g.id, parts.Codecs, parts.Log, parts.Reg); err != nil {
		return nil, err
	}
	if g.client, err = g.Client(dskit.GetCodec()); err != nil {
		return nil, err
	}
	g.placed.Store(&placed{placing: newPlacing(nil, g.rf, 0, g.id)})
	if parts.Router {
		return g, nil
	}
	return g, g.newLifecycler()
}

// newLifecycler makes what keeps this node's entry in the ring.
func (g *Gossip) newLifecycler() error {
	addr, err := g.address()
	if err != nil {
		return err
	}
	path := filepath.Join(g.parts.Dir, "ring-tokens.json")
	file, err := readTokens(path)
	if err != nil {
		// Other tokens move series to other nodes, no more: not worth refusing to start.
		g.parts.Log.Error("this node gets a new place on the ring", "err", err)
	}
	g.own = &delegate{path: path, tokens: g.cfg.Tokens, log: g.parts.Log, forget: g.forget, clash: g.clash, file: file}
	g.life, err = dskit.NewBasicLifecycler(dskit.BasicLifecyclerConfig{
		ID: g.id, Addr: addr, Zone: g.cfg.Zone,
		HeartbeatPeriod: time.Duration(g.cfg.HeartbeatPeriod), HeartbeatTimeout: time.Duration(g.cfg.HeartbeatTimeout),
		NumTokens:                       g.cfg.Tokens,
		KeepInstanceInTheRingOnShutdown: true,
	}, "ingest", ringKey, g.client, g.own, goKit(g.parts.Log), prometheus.WrapRegistererWithPrefix("firnline_", g.parts.Reg))
	if err != nil {
		return fmt.Errorf("ring: %w", err)
	}
	return nil
}

// address is where others send writes to.
func (g *Gossip) address() (string, error) {
	host, port, err := splitPort(g.parts.Address)
	if err != nil {
		return "", fmt.Errorf("gRPC address %q: %w", g.parts.Address, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if host, err = g.gossipHost(); err != nil {
			return "", fmt.Errorf("address of this node: %w; set --ring.advertise-address", err)
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

func (g *Gossip) gossipHost() (string, error) {
	for _, a := range []string{g.cfg.Advertise, g.cfg.Bind} {
		host, _, err := splitPort(a)
		if ip := net.ParseIP(host); err == nil && host != "" && (ip == nil || !ip.IsUnspecified()) {
			return host, nil
		}
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	var names []string
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback == 0 {
			names = append(names, i.Name)
		}
	}
	return netutil.GetFirstAddressOf(names, goKit(g.parts.Log), true)
}

// Client returns a view of the same store of gossip for values of a codec,
// which was among Parts.Codecs. Its calls wait until Run has begun.
func (g *Gossip) Client(c codec.Codec) (kv.Client, error) {
	client, err := memberlist.NewClient(g.kv, c)
	if err != nil {
		return nil, fmt.Errorf("gossip for %s: %w", c.CodecID(), err)
	}
	return client, nil
}

// ID is the name of this node.
func (g *Gossip) ID() string { return g.id }

// Run joins the ring and keeps up with it until ctx is done. That nobody can be
// joined is no error. Unless Leave was called, this node stays in the
// ring as one that is being restarted.
func (g *Gossip) Run(ctx context.Context) error {
	until := g.parts.Now().Add(time.Duration(g.cfg.JoinWait))
	g.alone.Store(&until)
	forever := context.WithoutCancel(ctx) // each is stopped in its turn
	if err := start(ctx, g.kv); err != nil {
		return errors.Join(err, stop(forever, g.kv))
	}
	if g.life == nil {
		g.watch(ctx)
		return stop(forever, g.kv)
	}
	err := start(ctx, g.life)
	if err == nil {
		g.watch(ctx)
		g.away(forever)
	}
	return errors.Join(err, stop(forever, g.life), stop(forever, g.kv))
}

// away makes this node one that is being restarted, unless it said before what it is.
func (g *Gossip) away(ctx context.Context) {
	if g.life.GetState() != dskit.ACTIVE {
		return
	}
	if err := g.change(ctx, dskit.JOINING); err != nil {
		g.parts.Log.Warn("others are not told of the restart", "err", err)
	}
}

// start starts a service, which goes on when ctx is done. That ctx is done meanwhile is no error.
func start(ctx context.Context, s services.Service) error {
	if err := s.StartAsync(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("ring: %w", err)
	}
	if err := s.AwaitRunning(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("ring: %w", err)
	}
	return nil
}

func stop(ctx context.Context, s services.Service) error {
	err := services.StopAndAwaitTerminated(ctx, s)
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("leave the ring: %w", err)
	}
	return nil
}

// watch looks at the ring when it changes, and now and then for heartbeats that are missing.
func (g *Gossip) watch(ctx context.Context) {
	changed := make(chan struct{}, 1)
	var watcher sync.WaitGroup
	defer watcher.Wait()
	watcher.Go(func() {
		g.client.WatchKey(ctx, ringKey, func(any) bool {
			select {
			case changed <- struct{}{}:
			default:
			}
			return true
		})
	})
	tick := time.NewTicker(time.Duration(g.cfg.HeartbeatPeriod) / 2)
	defer tick.Stop()
	for {
		if v, err := g.client.Get(ctx, ringKey); err != nil {
			g.parts.Log.Warn("read the ring", "err", err)
		} else if desc, ok := v.(*dskit.Desc); ok {
			g.observe(desc)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

// observe makes members of what gossip says, and places them anew if anything about them matters.
func (g *Gossip) observe(desc *dskit.Desc) {
	members := g.membersOf(desc)
	g.metrics.members(members)
	old := g.placed.Load()
	floor, found := 0, old.found || slices.ContainsFunc(members, func(m Member) bool { return m.ID != g.id })
	if g.own != nil && !found {
		floor = g.own.known()
	}
	p := newPlacing(members, g.rf, floor, g.id)
	if slices.EqualFunc(old.members, members, samePlace) && old.rf == p.rf && old.found == found {
		return
	}
	next := &placed{placing: p, found: found}
	next.whole = p.view()
	g.placed.Store(next)
	g.metrics.changes.Inc()
	g.metrics.factor.Set(float64(p.rf))
	g.log(old.members, members)
	if known := countIf(members, (*Member).counts); g.own != nil && found && known != countIf(old.members, (*Member).counts) {
		g.own.remember(known)
	}
}

// samePlace tells whether a member takes the same place in two rings.
func samePlace(a, b Member) bool {
	return a.ID == b.ID && a.Addr == b.Addr && a.Zone == b.Zone && a.State == b.State && a.Healthy == b.Healthy && slices.Equal(a.Tokens, b.Tokens)
}

func countIf(members []Member, is func(*Member) bool) int {
	n := 0
	for i := range members {
		if is(&members[i]) {
			n++
		}
	}
	return n
}

// log says who came, went or changed.
func (g *Gossip) log(old, now []Member) {
	was := map[string]Member{}
	for _, m := range old {
		was[m.ID] = m
	}
	for _, m := range now {
		if o, ok := was[m.ID]; !ok || o.State != m.State || o.Healthy != m.Healthy || o.Addr != m.Addr {
			g.parts.Log.Info("ring changed", "instance", m.ID, "address", m.Addr, "zone", m.Zone, "state", m.State, "healthy", m.Healthy)
		}
		delete(was, m.ID)
	}
	for id := range was {
		g.parts.Log.Info("ring changed", "instance", id, "state", "gone")
	}
}

// membersOf returns the members by ID, with their health.
func (g *Gossip) membersOf(desc *dskit.Desc) []Member {
	now := g.parts.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	var members []Member
	for _, id := range slices.Sorted(maps.Keys(desc.Ingesters)) {
		d := desc.Ingesters[id]
		if d.State == dskit.LEFT {
			continue
		}
		at := g.lastSeen(id, d.Timestamp, now)
		members = append(members, Member{
			ID: id, Addr: d.Addr, Zone: d.Zone, State: State(d.State.String()), Tokens: d.Tokens, Heartbeat: at,
			Healthy: now.Sub(at) <= time.Duration(g.cfg.HeartbeatTimeout),
		})
	}
	maps.DeleteFunc(g.seen, func(id string, _ heartbeat) bool { _, ok := desc.Ingesters[id]; return !ok })
	return members
}

// lastSeen returns when a member's heartbeat was seen to go on. g.mu is held.
func (g *Gossip) lastSeen(id string, theirs int64, now time.Time) time.Time {
	h, ok := g.seen[id]
	switch {
	case !ok: // what it says is all we have
		h = heartbeat{theirs, time.Unix(theirs, 0)}
		if h.seen.After(now) {
			h.seen = now
		}
	case h.theirs != theirs:
		h = heartbeat{theirs, now}
	}
	g.seen[id] = h
	return h.seen
}

// forget removes members from the ring that are dead for long.
func (g *Gossip) forget(desc *dskit.Desc) {
	for _, m := range g.membersOf(desc) {
		if age := g.parts.Now().Sub(m.Heartbeat); m.ID != g.id && age > time.Duration(g.cfg.ForgetAfter) {
			g.parts.Log.Warn("node is taken out of the ring: no heartbeat for long", "instance", m.ID, "age", age)
			desc.RemoveIngester(m.ID)
		}
	}
}

// clash says that somebody else uses our ID.
func (g *Gossip) clash(addr string) {
	g.metrics.clashes.Inc()
	g.parts.Log.Error("another node is in the ring under the ID of this one; give each its own --ring.instance-id", "instance", g.id, "other", addr)
}

// View implements Ring.
func (g *Gossip) View(id tenant.ID) (*View, error) {
	p := g.placed.Load()
	if !p.found {
		if err := g.believeAlone(id); err != nil {
			return nil, err
		}
	}
	if p.whole == nil {
		return nil, refuse.Errorf(refuse.NotReady, id, "no node is in the ring")
	}
	size := 0
	if g.parts.ShardSize != nil {
		size = g.parts.ShardSize(id)
	}
	if size <= 0 || size >= len(p.members) {
		return p.whole, nil
	}
	return p.views.get(viewKey{id, size}, func() (*View, error) {
		if v := p.shard(id, size).view(); v != nil {
			return v, nil
		}
		return p.whole, nil // all are leaving
	})
}

// believeAlone is an error while this node may not have found the others yet.
func (g *Gossip) believeAlone(id tenant.ID) error {
	until := g.alone.Load()
	if len(g.cfg.Join) == 0 && until != nil || until != nil && g.parts.Now().After(*until) {
		return nil
	}
	return refuse.Errorf(refuse.NotReady, id, "no other node of the ring is found yet (%s)", strings.Join(g.cfg.Join, ", "))
}

// Activate says that this node can be written to: its log is replayed.
func (g *Gossip) Activate(ctx context.Context) error { return g.change(ctx, dskit.ACTIVE) }

// Leave says that this node is not to be written to any more. With forGood it
// will not come back: it flushes what it has, and is gone from the ring when
// Run ends; otherwise it is being restarted, and keeps its place. Before Run there
// is nobody to tell.
func (g *Gossip) Leave(ctx context.Context, forGood bool) error {
	if g.life == nil {
		return nil
	}
	g.life.SetKeepInstanceInTheRingOnShutdown(!forGood)
	if g.alone.Load() == nil {
		return nil
	}
	if forGood {
		return g.change(ctx, dskit.LEAVING)
	}
	return g.change(ctx, dskit.JOINING)
}

func (g *Gossip) change(ctx context.Context, s dskit.InstanceState) error {
	if g.life == nil {
		return nil
	}
	if err := g.life.AwaitRunning(ctx); err != nil {
		return fmt.Errorf("ring: become %s: %w", s, err)
	}
	if err := g.life.ChangeState(ctx, s); err != nil {
		return fmt.Errorf("ring: become %s: %w", s, err)
	}
	return nil
}

// Forget takes a dead member out of the ring, for an operator who knows that it
// won't come back.
func (g *Gossip) Forget(ctx context.Context, id string) error {
	members := g.placed.Load().members
	i := slices.IndexFunc(members, func(m Member) bool { return m.ID == id })
	switch {
	case i < 0:
		return fmt.Errorf("forget %q: there is no such node in the ring", id)
	case members[i].Healthy:
		return fmt.Errorf("forget %q: the node is alive", id)
	}
	err := g.client.CAS(ctx, ringKey, func(in any) (any, bool, error) {
		desc := dskit.GetOrCreateRingDesc(in)
		desc.RemoveIngester(id)
		return desc, true, nil
	})
	if err != nil {
		return fmt.Errorf("forget %q: %w", id, err)
	}
	return nil
}

// Members returns the members of the ring by ID. It must not be changed.
func (g *Gossip) Members() []Member { return g.placed.Load().members }

// Instances returns the nodes that may hold samples which others have
// acknowledged: whoever reads asks all of them, in whatever state.
func (g *Gossip) Instances() []Instance {
	p := g.placed.Load()
	all := p.instances()
	return slices.DeleteFunc(all, func(i Instance) bool {
		at, _ := slices.BinarySearchFunc(p.members, i.ID, func(m Member, id string) int { return strings.Compare(m.ID, id) })
		return p.members[at].State == Pending
	})
}

// Package replicate hands the series of a request to the nodes that own them,
// and tells when enough of them have what they were given.
//
//	Write ─► split by owner ─┬─► heads of this process ──────────────┐
//	                         ├─► frame ─► gRPC ─► another's heads ───┼─► votes per series ─► answer
//	                         └─► WriteableStore of a Thanos receive ─┘
//
// A Write is answered as soon as each of its series has its quorum, or can't
// get it any more; owners that are late are waited for in the background, for at most their timeout.
// A request may be sent again whatever became of it: what an owner has already is no error.
package replicate

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"google.golang.org/grpc"

	"github.com/firnline/firnline/pkg/content"
	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/ingest/internal/ring"
)

// Owner appends what it is given. It returns an error when nothing is known to
// be appended: a *refuse.Error tells whether to try again, any other is tried
// again. It is used by many at once, reads the Write until it returns and keeps nothing of it.
type Owner interface {
	Append(ctx context.Context, w *batch.Write) (batch.Result, error)
}

// Config bounds what is sent to other nodes.
type Config struct {
	Timeout          model.Duration
	MaxBackoff       model.Duration
	InFlightRequests int   // per node
	InFlightBytes    int64 // per node
	MaxFrameBytes    int64
	Compression      string // none or snappy
}

// RegisterFlags registers the flags and fills in their defaults.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	c.Timeout = model.Duration(5 * time.Second)
	c.MaxBackoff = model.Duration(5 * time.Second)
	fs.Var(&c.Timeout, "receive-forward-timeout", "Time a node has to append what it is sent; then it counts as failed.")
	fs.Var(&c.MaxBackoff, "receive-forward-max-backoff", "Longest time that a node which failed is left alone for before one request tries it again.")
	fs.IntVar(&c.InFlightRequests, "receive.forward-max-requests", 2048, "Requests to one node that wait for its answer; above that it counts as failed.")
	c.InFlightBytes, c.MaxFrameBytes = 256<<20, 32<<20
	fs.Var(content.Bytes(&c.InFlightBytes), "receive.forward-max-bytes", "Bytes of samples held for one node's answers; above that it counts as failed.")
	fs.Var(content.Bytes(&c.MaxFrameBytes), "receive.forward-max-frame-bytes", "Bytes of a message between nodes; larger requests are sent in several.")
	fs.StringVar(&c.Compression, "receive.grpc-compression", "none", "Compression of messages between nodes: none or snappy. Samples gain little; labels of new series do.")
}

// Validate returns every mistake at once.
func (c *Config) Validate() error {
	var errs []error
	for name, v := range map[string]int64{
		"receive-forward-timeout": int64(c.Timeout), "receive-forward-max-backoff": int64(c.MaxBackoff),
		"receive.forward-max-requests": int64(c.InFlightRequests), "receive.forward-max-bytes": c.InFlightBytes,
	} {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("--%s: must be above 0", name))
		}
	}
	if c.MaxFrameBytes < 64<<10 || c.MaxFrameBytes > 1<<30 {
		errs = append(errs, fmt.Errorf("--receive.forward-max-frame-bytes=%d: must be from 64 KiB to 1 GiB", c.MaxFrameBytes))
	}
	if c.Compression != "none" && c.Compression != "snappy" {
		errs = append(errs, fmt.Errorf("--receive.grpc-compression=%q: must be none or snappy", c.Compression))
	}
	return errors.Join(errs...)
}

// Parts are what a Replicator is made of.
type Parts struct {
	Ring  ring.Ring
	Local Owner             // of this process; nil: it owns nothing
	Dial  []grpc.DialOption // credentials and what else connections to nodes need
	Log   *slog.Logger
	Reg   prometheus.Registerer
	Now   func() time.Time
	// Away says why this process, an owner, is none for now; nil when it is one. nil: it always is.
	Away func() error
}

// Replicator writes to owners.
type Replicator struct {
	cfg     Config
	parts   Parts
	metrics *metrics
	peers   peers
	flights sync.Pool
	running sync.WaitGroup // owners that have not answered
}

// New wires a Replicator and connects to nobody yet.
func New(cfg Config, parts Parts) *Replicator {
	r := &Replicator{cfg: cfg, parts: parts, metrics: newMetrics(parts.Reg)}
	r.peers = peers{r: r, open: map[string]*peer{}}
	return r
}

// Run closes connections to nodes that are gone, and at its end, when ctx is
// done, waits for late answers and closes all. Nothing is to be written from then on.
func (r *Replicator) Run(ctx context.Context) error {
	tick := time.NewTicker(idleCheck)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.peers.closeIdle(r.parts.Now())
		case <-ctx.Done():
			r.running.Wait()
			return r.peers.close()
		}
	}
}

// Write sends the series of w to their owners and returns when it is known what
// becomes of each. What is not accepted is added to t. release is called once, when nobody reads the
// Batch any more: that may be long after Write has returned.
func (r *Replicator) Write(ctx context.Context, w *batch.Write, t *refuse.Tally, release func()) {
	v, err := r.parts.Ring.View(w.Tenant)
	if err != nil {
		refuseAll(w, err, t)
		release()
		return
	}
	f := r.flight(w, release)
	f.split.cut(v, w)
	f.start(ctx, v)
	f.wait(ctx)
	f.report(t)
	f.done()
}

// Local appends all series of w to this process' heads, as one who has already
// found out that they belong here wants it. release is called before it returns.
func (r *Replicator) Local(ctx context.Context, w *batch.Write, t *refuse.Tally, release func()) {
	defer release()
	if r.parts.Local == nil {
		refuseAll(w, refuse.Errorf(refuse.NotReady, w.Tenant, "this node only routes: it owns no series"), t)
		return
	}
	res, err := r.parts.Local.Append(ctx, w)
	if err != nil {
		refuseAll(w, err, t)
		return
	}
	for _, x := range res.Refused {
		t.Add(x.Err.Reason, x.Samples, func() *refuse.Error { return x.Err })
	}
	for _, n := range res.Unknown {
		t.Add(refuse.Unavailable, samples(w.Batch, n), func() *refuse.Error { return unknownSeries(w) })
	}
}

// refuseAll adds all samples of w to t.
func refuseAll(w *batch.Write, err error, t *refuse.Tally) {
	n := 0
	for _, s := range w.Only {
		n += samples(w.Batch, s)
	}
	e := asRefusal(w, err)
	t.Add(e.Reason, n, func() *refuse.Error { return e })
}

// asRefusal makes a refusal of any error.
func asRefusal(w *batch.Write, err error) *refuse.Error {
	if e, ok := errors.AsType[*refuse.Error](err); ok {
		return e
	}
	return refuse.Errorf(refuse.Unavailable, w.Tenant, "%v", err)
}

func unknownSeries(w *batch.Write) *refuse.Error {
	return refuse.Errorf(refuse.Unavailable, w.Tenant, "an owner does not know a series by its number, nor by its labels")
}

// tooFew is why series that have fewer owners than must confirm are not written.
// A node that is about to own series again says that: no other is missing then.
func (r *Replicator) tooFew(w *batch.Write, v votes) *refuse.Error {
	if r.parts.Away != nil {
		if err := r.parts.Away(); err != nil {
			return refuse.Errorf(refuse.NotReady, w.Tenant, "%v; %d of the nodes that own the series can be written to, %d must confirm", err, v.owners, v.quorum)
		}
	}
	return refuse.Errorf(refuse.Unavailable, w.Tenant, "%d of the nodes that own the series can be written to, %d must confirm", v.owners, v.quorum)
}

// samples counts those of series n.
func samples(b *batch.Batch, n uint32) int {
	s := &b.Series[n]
	return s.Floats.Len() + s.Histograms.Len()
}

// owner returns who writes to an instance.
func (r *Replicator) owner(i ring.Instance) Owner {
	if i.Local && r.parts.Local != nil {
		return r.parts.Local
	}
	return r.peers.get(i)
}

package intake

import (
	"crypto/rand"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/model"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/ha"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/tenant"
)

// catalog is what is known of the series of one request's tenant under one
// version of its limits. Look-ups take no lock.
type catalog struct {
	rules   *rules
	self    *owner // the request's tenant
	index   *index
	entries pages
	classes atomic.Pointer[[]class] // grows only
	calls   atomic.Uint32
	live    atomic.Int64

	mu struct { // of those that add, and sweep
		sync.Mutex
		last    uint32 // ID
		numbers map[class]uint32
		metrics map[metricKey]*metric
		tenants map[tenant.ID]*owner
		found   map[*owner]*activity // by the last sweep
		swept   time.Time
	}
}

// verdict is the first thing to know of a class.
type verdict uint8

const (
	taken verdict = iota
	dropped
	refused
)

// class is what many series have in common. Two are equal if all is.
type class struct {
	verdict verdict
	reason  refuse.Reason // of those refused
	owner   *owner
	pair    ha.Pair // of those from a pair of senders
	replica string
	metric  *metric
	active  uint64 // bits of the limits' active_series
}

// owner is a tenant that series of this catalog belong to.
type owner struct {
	id      tenant.ID
	session batch.Session
	number  uint32 // 0: the request's own
	last    uint32 // ID at an owner other than the request's; under the catalog's lock
	looks   looks
}

// metric counts the samples of one metric, roughly: one series in sampleEvery counts for all.
type metric struct {
	name    string
	owner   *owner
	samples atomic.Uint64
	before  uint64        // samples at the last sweep; of the sweep alone
	rate    atomic.Uint64 // samples a second between the last two sweeps, as bits of a float64
	series  atomic.Int64  // active at the last sweep
}

type metricKey struct {
	owner *owner
	name  string
}

// maxMetrics bounds the metrics that are counted one by one; what is beyond counts as one.
const maxMetrics = 1 << 16

func newCatalog(r *rules) *catalog {
	c := &catalog{rules: r, index: newIndex()}
	c.mu.numbers = map[class]uint32{}
	c.mu.metrics = map[metricKey]*metric{}
	c.mu.tenants = map[tenant.ID]*owner{}
	c.self = c.ownerLocked(r.own)
	return c
}

func (c *catalog) ownerLocked(id tenant.ID) *owner {
	o := c.mu.tenants[id]
	if o == nil {
		o = &owner{id: id, number: uint32(len(c.mu.tenants))}
		_, _ = rand.Read(o.session[:]) // never fails
		c.mu.tenants[id] = o
	}
	return o
}

func (c *catalog) metricLocked(o *owner, name string) *metric {
	k := metricKey{o, name}
	if m := c.mu.metrics[k]; m != nil {
		return m
	}
	if len(c.mu.metrics) >= maxMetrics {
		k = metricKey{owner: o}
		if m := c.mu.metrics[k]; m != nil {
			return m
		}
	}
	k.name = strings.Clone(k.name) // not the memory of all the labels
	m := &metric{name: k.name, owner: o}
	c.mu.metrics[k] = m
	return m
}

// maxClasses bounds what differs in more than labels: pairs, tenants, metrics.
const maxClasses = 1 << 20

// classLocked returns the number of what f and others have in common; false if there are too many.
func (c *catalog) classLocked(f *fate) (uint32, bool) {
	k := class{verdict: taken, owner: c.self}
	switch {
	case f.err != nil:
		k.verdict, k.reason = refused, f.err.Reason
	case f.dropped:
		k.verdict = dropped
	default:
		k.owner = c.ownerLocked(f.tenant)
		k.metric = c.metricLocked(k.owner, f.labels.Get(model.MetricNameLabel))
		k.active = c.rules.lim.ActiveSeries.Mask(c.rules.names, f.labels)
		if f.cluster != "" {
			k.pair = ha.Pair{Tenant: k.owner.id, Cluster: strings.Clone(f.cluster)}
			k.replica = strings.Clone(f.replica)
		}
	}
	if n, ok := c.mu.numbers[k]; ok {
		return n, true
	}
	all := c.load()
	if len(all) >= maxClasses {
		return 0, false
	}
	n := uint32(len(all))
	all = append(all, k)
	c.classes.Store(&all)
	c.mu.numbers[k] = n
	return n, true
}

// load returns all classes by number.
func (c *catalog) load() []class {
	if p := c.classes.Load(); p != nil {
		return *p
	}
	return nil
}

// addLocked makes a series known and returns its ID, 0 if there is no room.
func (c *catalog) addLocked(k batch.Key, f *fate, tick uint8) (id uint32, isNew bool) {
	if id, _ := c.index.find(k, c.entries.load()); id != 0 {
		return id, false // of another request, or earlier in this one
	}
	n, ok := c.classLocked(f)
	if !ok || c.mu.last == maxNumber {
		return 0, false
	}
	cl := &c.load()[n]
	c.mu.last++
	id = c.mu.last
	dir := c.entries.grow(id)
	e := at(dir, id)
	word := uint64(id+1)<<nextAt | uint64(n)<<classAt | uint64(tick)
	if cl.verdict == taken {
		e.hash.Store(HashOf(cl.owner.id, f.labels))
		if cl.owner != c.self {
			c.moveLocked(&dir[id>>pageBits], id, cl.owner)
		} else if cl.replica == "" {
			word |= plainBit
		}
	}
	e.word.Store(word)
	e.lo.Store(k.Lo)
	e.hi.Store(k.Hi) // from here on others see it
	c.index.add(k, id)
	c.live.Add(1)
	return id, true
}

// moveLocked gives an entry its ID at a tenant that is not the request's.
func (c *catalog) moveLocked(p *pageRef, id uint32, o *owner) {
	own := p.own.Load()
	if own == nil {
		own = new([pageSize]uint32)
		p.own.Store(own)
	}
	o.last++
	own[id&pageMask] = o.last
}

// idAt is the ID that a series has at its owner.
func (c *catalog) idAt(o *owner, id uint32) uint64 {
	if o == c.self {
		return uint64(id)
	}
	dir := c.entries.load() // anew: it may have come after the request began
	if own := dir[id>>pageBits].own.Load(); own != nil {
		return uint64(own[id&pageMask])
	}
	return 0 // just left
}

package forward

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/tenant"
)

// known is what an endpoint remembers of the series that it has seen: whether
// they are sent, and how. What does not fit is forgotten as a whole and found
// out anew, from the labels, as series come: old sessions, and series that are
// gone, which nobody tells of. It is safe for concurrent use.
type known struct {
	max  int64 // bytes
	size prometheus.Gauge

	mu struct {
		sync.RWMutex
		bytes    int64
		sessions map[session]map[uint64]*target // by series ID
		names    map[string]bool                // metrics that are sent, for their metadata
	}
}

// session is whose numbers series have.
type session struct {
	tenant tenant.ID
	of     batch.Session
}

// target is what is known of a series that was seen. skipped: it is not sent.
type target struct {
	labels []byte // encoded
	name   string // of the metric
	shard  int
}

var skipped = &target{}

// Bytes that a series takes beside its labels: an entry of a map, and a target.
const entryBytes, targetBytes = 40, 64

func newKnown(maxBytes int64, size prometheus.Gauge) *known {
	k := &known{max: maxBytes, size: size}
	k.mu.sessions, k.mu.names = map[session]map[uint64]*target{}, map[string]bool{}
	return k
}

// get returns nil for a series that is not known.
func (k *known) get(of session, id uint64) *target {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.mu.sessions[of][id]
}

func (k *known) add(of session, id uint64, t *target) {
	bytes := int64(entryBytes)
	if t != skipped {
		bytes += targetBytes + int64(cap(t.labels)+len(t.name))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.sessions[of][id] != nil {
		return // somebody else was faster
	}
	if k.mu.bytes+bytes > k.max {
		k.forgetLocked()
	}
	if k.mu.sessions[of] == nil {
		k.mu.sessions[of] = map[uint64]*target{}
	}
	k.mu.sessions[of][id] = t
	if t != skipped {
		k.mu.names[t.name] = true
	}
	k.mu.bytes += bytes
	k.size.Set(float64(k.mu.bytes))
}

// sends tells whether a series of a metric family is sent.
func (k *known) sends(family string) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, suffix := range []string{"", "_bucket", "_count", "_sum", "_total"} {
		if k.mu.names[family+suffix] {
			return true
		}
	}
	return false
}

// forget forgets everything.
func (k *known) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgetLocked()
}

func (k *known) forgetLocked() {
	clear(k.mu.sessions)
	clear(k.mu.names)
	k.mu.bytes = 0
	k.size.Set(0)
}

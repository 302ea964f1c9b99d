// Package wire turns the bodies of write requests into batches: remote write 1
// and 2, OTLP metrics in protobuf and JSON, and what Thanos' routers send to
// their ingesters.
//
//	request ─► Negotiate (what is it?) ─► Body (inflate, within limits) ─► Decode (columns) ─► batch.Batch
//
// It walks the protocol's bytes and makes no message objects. A series is
// recognised by a hash of the bytes that name it (batch.Key); its labels are
// parsed only when somebody asks for them, which happens once in the life of a
// series. What is malformed, or larger than its limit, comes back as a
// *refuse.Error with the position of the first bad byte; sizes that a sender
// declares are checked before memory is taken for them.
//
// A Decoder is safe to be used by many goroutines at once. A Body belongs to
// one; Decode takes it over.
package wire

import (
	"errors"
	"flag"
	"fmt"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/content"
	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/tenant"
)

// Config bounds what one request may take.
type Config struct {
	MaxBodyBytes    int64 `yaml:"max_body_bytes"`    // as sent
	MaxDecodedBytes int64 `yaml:"max_decoded_bytes"` // decompressed
	MaxItems        int   `yaml:"max_items"`         // series, samples, exemplars, symbols, metadata, each counted as one

	// What conversion of OTLP's delta points to cumulative ones remembers.
	DeltaMaxStreams int            `yaml:"delta_max_streams"` // a tenant
	DeltaMaxStale   model.Duration `yaml:"delta_max_stale"`   // a stream silent for so long begins anew
}

// Names of flags that errors speak of.
const (
	flagBody    = "--ingest.max-body-bytes"
	flagDecoded = "--ingest.max-decoded-bytes"
	flagItems   = "--ingest.max-items"
)

// RegisterFlags fills in the defaults.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	c.MaxBodyBytes, c.MaxDecodedBytes = 32<<20, 64<<20
	fs.Var(content.Bytes(&c.MaxBodyBytes), flagBody[2:], "Largest body of a write request, as sent. A larger one is answered 413.")
	fs.Var(content.Bytes(&c.MaxDecodedBytes), flagDecoded[2:], "Largest body of a write request once decompressed. A larger one is answered 413.")
	fs.IntVar(&c.MaxItems, flagItems[2:], 500_000,
		"Most series, samples, exemplars, symbols and metadata, counted together, in one write request. More are answered 413.")
	fs.IntVar(&c.DeltaMaxStreams, "ingest.delta-max-streams", 100_000, "Most OTLP delta streams of a tenant that are summed up to cumulative series at a time. Points of further ones are refused.")
	c.DeltaMaxStale = model.Duration(5 * time.Minute)
	fs.Var(&c.DeltaMaxStale, "ingest.delta-max-stale", "An OTLP delta stream that is silent for so long is forgotten, and begins anew.")
}

// Validate checks what an operator has set.
func (c *Config) Validate() error {
	if c.MaxBodyBytes <= 0 || c.MaxDecodedBytes <= 0 || c.MaxItems <= 0 {
		return fmt.Errorf("%s, %s and %s: give more than 0", flagBody, flagDecoded, flagItems)
	}
	if c.MaxDecodedBytes > math.MaxUint32 {
		return fmt.Errorf("%s: give less than 4 GiB", flagDecoded)
	}
	if c.DeltaMaxStreams <= 0 || c.DeltaMaxStale <= 0 {
		return errors.New("--ingest.delta-max-streams and --ingest.delta-max-stale: give more than 0")
	}
	return nil
}

// MostMemory is what the body of one request may take: as sent, decompressed, and to decompress it.
func (c *Config) MostMemory() int64 { return c.MaxBodyBytes + c.MaxDecodedBytes + zstdWindow }

// Decoder decodes requests. Keys of one Decoder are comparable with each
// other only: their hashes are seeded at random, so that nobody can prepare
// series that clash.
type Decoder struct {
	cfg    Config
	hi, lo maphash.Seed

	bodies   sync.Pool // *Body
	requests sync.Pool // *request
	inflate  inflaters
	builders sync.Pool // *labels.ScratchBuilder

	libraries    sync.Pool // *library
	writers      sync.Pool // *otlpWriter
	translations atomic.Pointer[[]*translation]
	deltas       deltas
}

// New makes a Decoder. The Config must be valid. now is asked only for the age of delta streams.
func New(cfg Config, now func() time.Time) *Decoder {
	return &Decoder{cfg: cfg, hi: maphash.MakeSeed(), lo: maphash.MakeSeed(),
		deltas: deltas{maxStreams: cfg.DeltaMaxStreams, maxStale: time.Duration(cfg.DeltaMaxStale), now: now}}
}

// Close ends what converts delta points. Nobody decodes any more.
func (d *Decoder) Close() { d.deltas.close() }

// key is the identity of what b names. Two hashes of the runtime's (AES) cost
// less than one xxhash64 of the same bytes.
func (d *Decoder) key(b []byte) batch.Key {
	return batch.Key{Hi: maphash.Bytes(d.hi, b), Lo: maphash.Bytes(d.lo, b)}
}

// Sender is what matters of who sends a request.
type Sender struct {
	Tenant tenant.ID
	OTLP   *OTLP // nil: DefaultOTLP
}

func (s Sender) options() OTLP {
	if s.OTLP == nil {
		return DefaultOTLP()
	}
	return *s.OTLP
}

// Decode fills an empty Batch from a body. It takes the body over: whether it succeeds
// or not, the body's memory is given back by the Batch's Free.
func (d *Decoder) Decode(f Format, body *Body, into *batch.Batch, from Sender) error {
	r := d.request(body)
	into.Free = r.free
	switch f {
	case RW1:
		return r.remoteWrite1(into)
	case RW2:
		return r.remoteWrite2(into)
	case OTLPProto:
		return r.otlpProto(into, from)
	default:
		return r.otlpJSON(into, from)
	}
}

// span is a range of the body.
type span struct{ from, to uint32 }

// request is what a Batch needs of the request it was decoded from, until it is freed.
type request struct {
	d      *Decoder
	body   *Body
	room   int    // items that may still come
	labels []span // where each series is named
	hashed []byte // scratch: what is hashed to a Key
	rw2    rw2State
	otlp   otlpState
}

// keptSpans bounds what a request keeps for the next one.
const keptSpans = 64 << 10

func (d *Decoder) request(body *Body) *request {
	r, ok := d.requests.Get().(*request)
	if !ok {
		r = &request{d: d}
	}
	r.body, r.room = body, d.cfg.MaxItems
	return r
}

// free gives everything back. Nobody reads the Batch any more.
func (r *request) free() {
	r.body.Free()
	r.body = nil
	if cap(r.labels) > keptSpans || cap(r.hashed) > keptSpans || r.rw2.large() || r.otlp.large() {
		return
	}
	r.labels, r.hashed = r.labels[:0], r.hashed[:0]
	r.rw2.reset()
	r.otlp.reset()
	r.d.requests.Put(r)
}

// scanner starts at the first byte of the body.
func (r *request) scanner(protocol string) scanner {
	return scanner{b: r.body.b, end: len(r.body.b), protocol: protocol}
}

// take counts n items against the limit.
func (r *request) take(s *scanner, n int) {
	if r.room -= n; r.room < 0 {
		s.tooLarge("more than %d series, samples, exemplars, symbols and metadata (%s)", r.d.cfg.MaxItems, flagItems)
	}
}

// builder lends a labels builder to f. Its result has memory of its own.
func (d *Decoder) builder(f func(*labels.ScratchBuilder)) {
	b, ok := d.builders.Get().(*labels.ScratchBuilder)
	if !ok {
		n := labels.NewScratchBuilder(16)
		n.SetUnsafeAdd(true)
		b = &n
	}
	b.Reset()
	f(b)
	d.builders.Put(b)
}

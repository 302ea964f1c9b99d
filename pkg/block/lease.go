package block

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

const leaseVersion = 1

// ErrLeaseLost tells a holder that somebody else has the lease now.
var ErrLeaseLost = errors.New("lease lost")

// HeldError tells that somebody else has a lease.
type HeldError struct {
	Name  string // of the lease
	Owner string
	For   string    // what its owner holds it for, in its words
	Since time.Time // last renewed, by the bucket's clock
	TTL   time.Duration
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("lease %s is held by %s (%s), last renewed %s, for %s from then", e.Name, e.Owner, e.For, e.Since.UTC().Format(time.RFC3339), e.TTL)
}

// LeaseConfig describes one lease. Name and Owner must be plain object names.
type LeaseConfig struct {
	Name  string        // what is leased; the same for all who want it
	Owner string        // who wants it; stays the same over restarts
	For   string        // shown to others
	TTL   time.Duration // from the last renewal

	Now   func() time.Time // nil: time.Now
	Nonce func() string    // nil: random; unlike all others for each attempt
}

// Lease is a claim in a bucket that at most one owner holds at a time, made by
// conditional writes of firnline/leases/<name> (docs/formats.md, "leases").
//
// It expires a TTL after its last renewal by the bucket's clock. Its holder, who
// would have to ask for that, counts by its own from before the request was
// sent, which can only be earlier. Still no lease stops a process that sleeps
// between looking and acting, so what is done under one must be harmless when
// done twice or late.
type Lease struct {
	cfg LeaseConfig
	bkt Bucket

	mu struct {
		sync.Mutex
		etag   string // of the record that we wrote last, while we hold the lease
		record leaseRecord
		until  time.Time // by our clock
		ever   bool      // held at some time in this process' life

		unanswered map[string]bool // nonces of writes since the last good one or reading; each may have landed
	}
}

// leaseRecord is the lease's object.
type leaseRecord struct {
	Version    int    `json:"version"`
	Generation int64  `json:"generation"` // rises with each change of hands
	Owner      string `json:"owner"`
	Nonce      string `json:"nonce"`       // of the attempt that wrote this record
	TTLSeconds int64  `json:"ttl_seconds"` // 0: released
	For        string `json:"for,omitempty"`
}

// NewLease wires a lease and asks nothing of the bucket.
func NewLease(bkt Bucket, cfg LeaseConfig) *Lease {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Nonce == nil {
		cfg.Nonce = rand.Text
	}
	l := &Lease{cfg: cfg, bkt: bkt}
	l.mu.unanswered = map[string]bool{}
	return l
}

func (l *Lease) object() string { return leasesPrefix + l.cfg.Name + ".json" }

// Held tells whether the lease is ours for now.
func (l *Lease) Held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held()
}

func (l *Lease) held() bool { return l.mu.etag != "" && l.cfg.Now().Before(l.mu.until) }

// Generation is that of the lease while it is held: a step that destroys
// something compares it with the one it was planned under.
func (l *Lease) Generation() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.record.Generation
}

// Acquire takes the lease or, when it is ours, renews it once a third of its TTL
// has passed. While another owner has it the error is a *HeldError; where the
// bucket has no conditional writes it wraps errors.ErrUnsupported.
//
// A lease that our own owner left behind, in an earlier life of this process, is
// taken over at once, and so is one that a write of ours has left whose answer
// was lost.
func (l *Lease) Acquire(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held() {
		if l.mu.until.Sub(l.cfg.Now()) > l.cfg.TTL*2/3 {
			return nil
		}
		err := l.renew(ctx)
		if !errors.Is(err, ErrLeaseLost) {
			return err
		}
	}
	l.mu.etag = ""
	current, etag, err := l.read(ctx)
	if err != nil {
		return err
	}
	if current != nil && !l.wrote(current) {
		if err := l.free(ctx, current); err != nil {
			return err
		}
	}
	next := leaseRecord{Version: leaseVersion, Generation: 1, Owner: l.cfg.Owner, For: l.cfg.For, TTLSeconds: ttlSeconds(l.cfg.TTL)}
	if current != nil {
		next.Generation = current.Generation + 1
	}
	return l.write(ctx, next, etag)
}

// Renew extends the lease. The error wraps ErrLeaseLost when it is not ours.
func (l *Lease) Renew(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.etag == "" {
		return fmt.Errorf("lease %s: %w", l.cfg.Name, ErrLeaseLost)
	}
	return l.renew(ctx)
}

func (l *Lease) renew(ctx context.Context) error {
	err := l.write(ctx, l.mu.record, l.mu.etag)
	if held := (*HeldError)(nil); errors.As(err, &held) {
		l.mu.etag = ""
		return fmt.Errorf("%w: %w", ErrLeaseLost, err)
	}
	return err
}

// Release gives the lease up by overwriting it as expired, never by removing
// it, since a removal can't be conditional. A lease that isn't ours is left alone.
func (l *Lease) Release(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.etag == "" {
		return nil
	}
	record := l.mu.record
	record.TTLSeconds = 0
	err := l.write(ctx, record, l.mu.etag)
	l.mu.etag = ""
	if held := (*HeldError)(nil); errors.As(err, &held) {
		return nil
	}
	return err
}

// read returns the record, or nil where there is none, with its ETag.
func (l *Lease) read(ctx context.Context) (*leaseRecord, string, error) {
	data, etag, err := l.bkt.GetIf(ctx, l.object(), "")
	if err != nil && l.bkt.IsObjNotFoundErr(err) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("lease %s: read: %w", l.cfg.Name, err)
	}
	r := &leaseRecord{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, "", fmt.Errorf("lease %s: %w: %w; remove the object %s", l.cfg.Name, ErrCorrupt, err, l.object())
	}
	if r.Version != leaseVersion {
		return nil, "", fmt.Errorf("lease %s: %w %d, this program reads %d; upgrade it", l.cfg.Name, ErrUnknownVersion, r.Version, leaseVersion)
	}
	return r, etag, nil
}

// wrote tells whether a record is one that we have written in this life: the
// last one, or one whose answer was lost. What can't have landed is forgotten.
func (l *Lease) wrote(r *leaseRecord) bool {
	unanswered := l.mu.unanswered[r.Nonce]
	clear(l.mu.unanswered)
	if unanswered {
		l.mu.unanswered[r.Nonce] = true // until a write is answered
	}
	return unanswered || l.mu.record.Nonce == r.Nonce && r.Nonce != ""
}

// free is nil where a record leaves the lease to us, and else a *HeldError.
func (l *Lease) free(ctx context.Context, r *leaseRecord) error {
	ttl := time.Duration(r.TTLSeconds) * time.Second
	if ttl <= 0 {
		return nil
	}
	// The second condition keeps two copies of one data folder, which share the
	// owner, from taking the lease from each other for ever.
	if r.Owner == l.cfg.Owner && !l.mu.ever {
		return nil
	}
	attrs, err := l.bkt.Attributes(ctx, l.object())
	if err != nil {
		return fmt.Errorf("lease %s: read age: %w", l.cfg.Name, err)
	}
	now, err := BucketTime(ctx, l.bkt, l.cfg.Owner)
	if err != nil {
		return fmt.Errorf("lease %s: %w", l.cfg.Name, err)
	}
	if now.Sub(attrs.LastModified) > ttl {
		return nil
	}
	return &HeldError{Name: l.cfg.Name, Owner: r.Owner, For: r.For, Since: attrs.LastModified, TTL: ttl}
}

// write puts a record in place of the one with the ETag etag. When the bucket
// says that there is another by now it reads back: after a retry whose first
// answer was lost, that other one is ours.
func (l *Lease) write(ctx context.Context, r leaseRecord, etag string) error {
	r.Nonce = l.cfg.Nonce()
	data, err := encodeJSON(r)
	if err != nil {
		return fmt.Errorf("lease %s: encode: %w", l.cfg.Name, err)
	}
	sent := l.cfg.Now()
	newETag, err := l.bkt.PutIf(ctx, l.object(), data, etag)
	if err != nil && l.bkt.IsConditionFailedErr(err) {
		newETag, err = l.readBack(ctx, r)
	}
	if err != nil {
		var held *HeldError
		if errors.As(err, &held) {
			return held
		}
		l.mu.unanswered[r.Nonce] = true
		return fmt.Errorf("lease %s: write: %w", l.cfg.Name, err)
	}
	clear(l.mu.unanswered)
	l.mu.etag, l.mu.record, l.mu.ever = newETag, r, true
	l.mu.until = sent.Add(time.Duration(r.TTLSeconds) * time.Second)
	return nil
}

func (l *Lease) readBack(ctx context.Context, want leaseRecord) (string, error) {
	got, etag, err := l.read(ctx)
	switch {
	case err != nil:
		return "", err
	case got == nil:
		return "", errors.New("the record vanished; it is tried again")
	case got.Owner == want.Owner && got.Nonce == want.Nonce:
		return etag, nil
	}
	held := &HeldError{Name: l.cfg.Name, Owner: got.Owner, For: got.For, TTL: time.Duration(got.TTLSeconds) * time.Second}
	if attrs, err := l.bkt.Attributes(ctx, l.object()); err == nil {
		held.Since = attrs.LastModified
	}
	return "", held
}

// ttlSeconds rounds up, so that nobody sees a lease as released.
func ttlSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// HonoursConditions tries on an object of owner's own whether a bucket refuses
// to create what is there already. Some stores and proxies ignore the condition
// and overwrite: leases mean nothing there.
func HonoursConditions(ctx context.Context, bkt Bucket, owner string) (bool, error) {
	name := leasesPrefix + "test/" + owner + ".json"
	body := []byte("{}\n")
	for range 2 { // the first may find the object of an earlier test
		_, err := bkt.PutIf(ctx, name, body, "")
		switch {
		case err == nil:
		case bkt.IsConditionFailedErr(err):
			return true, nil
		case errors.Is(err, errors.ErrUnsupported):
			return false, nil
		default:
			return false, fmt.Errorf("try conditional writes: %w", err)
		}
	}
	return false, nil
}

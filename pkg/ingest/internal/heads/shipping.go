package heads

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/block"
)

// source is what meta.json says of who cut a block.
const source = "receive"

// shipping sends a tenant's blocks and says which local ones may go.
type shipping struct {
	head    *head
	shipper *block.Shipper // nil: there is no bucket

	pass sync.Mutex // held during a pass; a Shipper makes one at a time

	mu struct {
		sync.Mutex
		since map[ulid.ULID]time.Time // blocks verified in the bucket, and when we first knew
	}
}

func newShipping(h *head) *shipping {
	s := &shipping{head: h}
	s.mu.since = map[ulid.ULID]time.Time{}
	if h.heads.bkt == nil {
		return s
	}
	s.shipper = block.NewShipper(h.heads.cfg.Shipper, block.ShipperParts{
		Dir: h.dir, Bucket: h.heads.bkt, Source: source, Log: h.log, Metrics: h.counters,
		Labels: func() labels.Labels { return h.heads.externalOf(h.id) },
		Notes:  func(ctx context.Context, m *block.Meta) error { return h.notes.send(ctx, m) },
	})
	s.shipper.SetClock(h.heads.now)
	return s
}

// ship makes one pass: what is local and not in the bucket is sent and verified there.
func (s *shipping) ship(ctx context.Context) error {
	s.pass.Lock()
	defer s.pass.Unlock()
	_, err := s.shipper.Sync(ctx)
	return errors.Join(err, s.note())
}

// note takes note of what the shipper has listed as verified in the bucket.
func (s *shipping) note() error {
	data, err := os.ReadFile(s.shipper.StateFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var list struct {
		Uploaded []ulid.ULID `json:"uploaded"`
	}
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		return fmt.Errorf("read the list of shipped blocks: %w", err)
	}
	now := s.head.heads.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	since := make(map[ulid.ULID]time.Time, len(list.Uploaded))
	for _, id := range list.Uploaded {
		since[id] = now
		if t, known := s.mu.since[id]; known {
			since[id] = t
		}
	}
	s.mu.since = since
	return nil
}

// deletable tells the TSDB which blocks may go: those past retention and, where
// there is a bucket, long enough in it for stores to have loaded them; and those
// that hold nothing.
func (s *shipping) deletable(blocks []*tsdb.Block) map[ulid.ULID]struct{} {
	cfg := &s.head.heads.cfg
	now := s.head.heads.now()
	oldest := now.Add(-time.Duration(cfg.Retention)).UnixMilli()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[ulid.ULID]struct{}{}
	for _, b := range blocks {
		m := b.Meta()
		since, shipped := s.mu.since[m.ULID]
		safe := s.shipper == nil || shipped && now.Sub(since) >= time.Duration(cfg.SyncDelay)
		if m.Compaction.Deletable || m.MaxTime <= oldest && safe {
			out[m.ULID] = struct{}{}
		}
	}
	return out
}

// verify looks at every local block in the bucket. One that was shipped before
// and is no longer there has been compacted, and what it became was verified by the compactor.
func (s *shipping) verify(ctx context.Context) error {
	for _, b := range s.head.db.Blocks() {
		id := b.Meta().ULID
		s.mu.Lock()
		_, shipped := s.mu.since[id]
		s.mu.Unlock()
		if !shipped {
			return fmt.Errorf("block %s is not in the bucket yet", id)
		}
		m, err := block.FetchMeta(ctx, s.head.heads.bkt, id)
		if errors.Is(err, block.ErrPartial) {
			continue
		}
		if err == nil {
			err = block.VerifyRemote(ctx, s.head.heads.bkt, m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// end gives up the shipper's lease, so that who comes after us need not wait for it to lapse.
func (s *shipping) end(ctx context.Context) {
	if s.shipper == nil {
		return
	}
	s.pass.Lock()
	defer s.pass.Unlock()
	over, cancel := context.WithCancel(ctx)
	cancel()
	_ = s.shipper.Run(over) // whose context has ended: it only releases
}

// shipAll makes a pass for every tenant, a few at once. One that fails is tried
// again with the next round; a bucket that fails costs each of them a request.
func (hs *Heads) shipAll(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(hs.cfg.ShipConcurrency)
	for _, h := range hs.retained() {
		g.Go(func() error {
			defer h.release()
			if ctx.Err() != nil {
				return nil
			}
			if err := h.shipping.ship(ctx); err != nil && ctx.Err() == nil {
				h.log.Warn("shipping blocks failed; it is tried again", "err", err, "pending", h.shipping.shipper.Status().Pending)
			}
			return nil
		})
	}
	_ = g.Wait() // failures are logged
}

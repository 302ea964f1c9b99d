package block

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// pass is one look for blocks and the uploads that follow from it.
type pass struct {
	*Shipper
	uploaded int
	pending  int
}

// consecutiveFailures is after how many failed blocks in a row a pass tries the
// newest one, to learn whether it is them or the bucket.
const consecutiveFailures = 3

func (p *pass) run(ctx context.Context) error {
	if err := p.Prepare(); err != nil {
		return err
	}
	metas, bad, err := scanLocal(p.dir)
	if err != nil {
		return err
	}
	p.setAsideAll(metas, bad)
	lset := p.labels()
	if lset.IsEmpty() {
		p.pending = p.count(metas)
		return fmt.Errorf("ship blocks: %w", ErrNoExternalLabels)
	}
	if err := p.state.observe(lset, p.now(), oldestCut(metas, p.now())); err != nil {
		return err
	}
	plan, err := p.plan(ctx, metas)
	if err != nil {
		p.pending = p.count(metas)
		return err
	}
	p.pending = len(plan.ship)
	if err := p.lease(ctx, lset); err != nil {
		return fmt.Errorf("ship blocks: %w", err)
	}
	if len(plan.covered) > 0 {
		if err := p.state.add(plan.covered...); err != nil {
			return err
		}
	}
	if err := p.ship(ctx, plan.ship); err != nil {
		return err
	}
	if err := p.state.rebuilt(); err != nil {
		return err
	}
	return p.state.prune(metas)
}

// count is how many blocks would be pending if none were covered.
func (p *pass) count(metas []*Meta) int {
	n := 0
	for _, m := range metas {
		if !p.state.has(m.ULID) {
			n++
		}
	}
	return n
}

// oldestCut returns when the oldest source of any local block was cut.
func oldestCut(metas []*Meta, now time.Time) time.Time {
	local := make([]localBlock, len(metas))
	for i, m := range metas {
		local[i].meta = m
	}
	if oldest := oldestSource(local); oldest < uint64(now.UnixMilli()) {
		return time.UnixMilli(int64(oldest))
	}
	return now
}

// plan decides what to ship, reading the bucket's metas only where that matters.
func (p *pass) plan(ctx context.Context, metas []*Meta) (shipPlan, error) {
	in := shipInput{shipped: p.state.shipped, rebuild: p.state.own.Rebuild, uploadCompacted: p.cfg.UploadCompacted}
	for _, m := range metas {
		if _, aside := p.quarantine[m.ULID]; !aside {
			in.local = append(in.local, localBlock{meta: m, labels: p.state.labelsOf(newestSource(m))})
		}
	}
	plan := planShip(in)
	if !plan.needRemote {
		return plan, nil
	}
	remote, err := readRemote(ctx, p.bkt, in.local)
	if err != nil {
		return shipPlan{}, fmt.Errorf("compare with the bucket: %w", err)
	}
	in.remote, in.remoteKnown = remote, true
	return planShip(in), nil
}

// newestSource tells when the samples of a block were last cut: a block that was
// compacted after the labels changed still has samples from before.
func newestSource(m *Meta) ulid.ULID {
	newest := m.Sources()[0]
	for _, s := range m.Sources() {
		if s.Compare(newest) > 0 {
			newest = s
		}
	}
	return newest
}

// lease makes sure that nobody else ships under the labels.
func (p *pass) lease(ctx context.Context, lset labels.Labels) error {
	if p.cfg.IgnoreOtherOwner {
		return nil
	}
	err := p.leases.acquire(ctx, lset)
	if !errors.Is(err, errNoConditions) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if !p.warned {
		p.warned = true
		p.log.Warn("the bucket has no conditional writes: nothing keeps a second shipper with the same external labels from mixing its blocks with ours; make sure that there is none", "labels", lset.String())
	}
	return nil
}

// ship sends blocks one after the other. One that fails does not stop the rest.
// Where several fail in a row the newest block tells whether it is them or the
// bucket: if that one fails too, the pass is over.
func (p *pass) ship(ctx context.Context, blocks []localBlock) error {
	var errs []error
	inARow := 0
	try := func(b localBlock) (goOn bool) {
		err := p.shipOne(ctx, b)
		if err == nil {
			inARow = 0
			return true
		}
		p.metrics.failures.Inc()
		errs = append(errs, err)
		inARow++
		var held *HeldError
		return ctx.Err() == nil && inARow <= consecutiveFailures && !errors.As(err, &held)
	}
	for len(blocks) > 0 {
		next, rest := blocks[0], blocks[1:]
		if inARow == consecutiveFailures {
			next, rest = blocks[len(blocks)-1], blocks[:len(blocks)-1]
		}
		if blocks = rest; !try(next) {
			break
		}
	}
	return FirstError(errs)
}

// shipOne sends one block and lists it as shipped. A block that is corrupt, or
// gone meanwhile, is no error here.
func (p *pass) shipOne(ctx context.Context, b localBlock) error {
	id := b.meta.ULID
	if err := p.lease(ctx, b.labels); err != nil {
		return fmt.Errorf("block %s: %w", id, err)
	}
	start := p.now()
	var sent *Uploaded
	err := p.leases.during(ctx, b.labels, func(ctx context.Context) (err error) {
		sent, err = p.upload(ctx, b)
		return err
	})
	switch {
	case errors.Is(err, ErrRemoved):
		p.log.Info("block has been shipped before and is being removed from the bucket", "block", id)
		sent = &Uploaded{Already: true}
	case err != nil && !exists(filepath.Join(p.dir, id.String())):
		p.log.Warn("block was removed before it could be shipped", "block", id, "err", err)
		p.pending--
		return nil
	case isBad(err):
		p.setAside(id, err)
		p.pending--
		return nil
	case err != nil:
		return err
	}
	p.announce(ctx, sent.Meta)
	// A compacted block brings its sources along.
	if err := p.state.add(append([]ulid.ULID{id}, b.meta.Sources()...)...); err != nil {
		return fmt.Errorf("block %s is in the bucket and can't be listed as shipped: %w", id, err)
	}
	p.pending--
	if !sent.Already {
		p.uploaded++
		p.metrics.uploads.Inc()
		p.log.Info("block shipped", "block", id, "size_bytes", sent.SentBytes, "duration", p.now().Sub(start))
	}
	return nil
}

// announce tells readers of the bucket's manifest of a block that is there now.
// Without it they see the block after the next listing.
func (p *pass) announce(ctx context.Context, m *Meta) {
	if m == nil {
		return // it is being removed
	}
	if err := Announce(ctx, p.bkt, Change{Block: m.ULID, Meta: m}); err != nil {
		p.metrics.unannounced.Inc()
		p.log.Warn("block is not announced; readers find it later, by listing the bucket", "block", m.ULID, "err", err)
	}
}

// isBad tells a block that can't be sent from a bucket that did not take it.
func isBad(err error) bool {
	return !errors.Is(err, ErrNotVerified) && !errors.Is(err, errNotes) && (errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnknownVersion))
}

func (p *pass) upload(ctx context.Context, b localBlock) (*Uploaded, error) {
	dir, err := linkBlock(p.dir, b.meta.ULID)
	if err != nil {
		return nil, err
	}
	m := *b.meta
	m.Thanos.Labels = b.labels.Map()
	m.Thanos.Source = p.source
	up := Uploader{
		Bucket: p.bkt, Concurrency: p.cfg.UploadConcurrency, HashFunc: p.cfg.HashFunc,
		Now: p.now, Fault: p.fault,
		Sent: func(n int64) { p.metrics.bytes.Add(float64(n)) },
	}
	if p.notes != nil && !b.derived() {
		up.BeforeMeta = p.sendNotes
	}
	sent, err := up.Upload(ctx, dir, &m)
	if dir != filepath.Join(p.dir, b.meta.ULID.String()) {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return sent, err
}

// StepNotes is where Shipper's fault hook is called when a block's notes are in
// the bucket.
const StepNotes = "ship/after-notes"

// errNotes marks a failure that says nothing about the block itself.
var errNotes = errors.New("notes can't be sent")

const (
	mostNoteTries = 3
	notesTimeout  = 2 * time.Minute // of one try
)

// sendNotes sends what is kept beside a block. Samples matter more: notes that
// fail again and again are left behind.
func (p *pass) sendNotes(ctx context.Context, m *Meta) error {
	limited, cancel := context.WithTimeout(ctx, notesTimeout)
	defer cancel()
	err := p.notes(limited, m)
	switch {
	case err == nil:
		delete(p.noteTries, m.ULID)
		if p.fault != nil {
			return p.fault(StepNotes)
		}
		return nil
	case ctx.Err() != nil:
		return err
	}
	if p.noteTries[m.ULID]++; p.noteTries[m.ULID] < mostNoteTries {
		return fmt.Errorf("%w: %w", errNotes, err)
	}
	delete(p.noteTries, m.ULID)
	p.metrics.noteless.Inc()
	p.log.Warn("block is shipped without exemplars and metadata", "block", m.ULID, "err", err)
	return nil
}

// setAsideAll brings the quarantine up to date with what is on disk: bad metas
// go in, vanished blocks come out, and so does what is due to be looked at again.
func (p *pass) setAsideAll(metas []*Meta, bad map[ulid.ULID]error) {
	local := make(map[ulid.ULID]struct{}, len(metas))
	for _, m := range metas {
		local[m.ULID] = struct{}{}
	}
	for id, q := range p.quarantine {
		_, readable := local[id]
		if due := p.now().Sub(q.since) >= time.Duration(p.cfg.QuarantineRecheck); bad[id] == nil && (due || !readable) {
			delete(p.quarantine, id)
		}
	}
	for id, err := range bad {
		p.setAside(id, err)
	}
}

func (p *pass) setAside(id ulid.ULID, err error) {
	old, known := p.quarantine[id]
	if known && old.err.Error() == err.Error() {
		return
	}
	p.quarantine[id] = setAside{err: err, since: p.now()}
	p.log.Error("block can't be shipped and is set aside; the others are shipped", "block", id, "err", err)
}

package block_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
)

// parties are owners who want the same lease.
type parties struct {
	bkt    *faulty
	bucket *clock // the bucket's
	own    *clock // theirs
	nonces int
}

func newParties() *parties {
	p := &parties{bkt: newFaulty(), bucket: newClock(), own: newClock()}
	p.own.add(72 * time.Hour) // clocks never agree
	p.bkt.SetClock(p.bucket.now)
	return p
}

func (p *parties) lease(owner string) *block.Lease {
	return block.NewLease(p.bkt, block.LeaseConfig{
		Name: "x", Owner: owner, For: "a test", TTL: time.Minute, Now: p.own.now,
		Nonce: func() string { p.nonces++; return fmt.Sprint(p.nonces) },
	})
}

func (p *parties) pass(d time.Duration) {
	p.bucket.add(d)
	p.own.add(d)
}

func TestLease(t *testing.T) {
	ctx, p := context.Background(), newParties()
	a, b := p.lease("a"), p.lease("b")
	require.NoError(t, a.Acquire(ctx))
	require.True(t, a.Held())
	require.EqualValues(t, 1, a.Generation())
	require.JSONEq(t, `{"version":1,"generation":1,"owner":"a","nonce":"1","ttl_seconds":60,"for":"a test"}`, string(p.bkt.Objects()["firnline/leases/x.json"]))

	var held *block.HeldError
	require.ErrorAs(t, b.Acquire(ctx), &held)
	require.Equal(t, "a", held.Owner)
	require.False(t, b.Held())

	// Renewed it lives on, by the bucket's clock.
	p.pass(50 * time.Second)
	require.NoError(t, a.Acquire(ctx))
	p.pass(50 * time.Second)
	require.ErrorAs(t, b.Acquire(ctx), &held)

	// Lapsed, it goes to the next one, and the old holder learns of it.
	p.pass(11 * time.Second)
	require.False(t, a.Held())
	require.NoError(t, b.Acquire(ctx))
	require.EqualValues(t, 2, b.Generation())
	require.ErrorIs(t, a.Renew(ctx), block.ErrLeaseLost)
	require.ErrorAs(t, a.Acquire(ctx), &held)
	require.Equal(t, "b", held.Owner)

	// Released by overwriting, it is free at once.
	require.NoError(t, b.Release(ctx))
	require.NoError(t, b.Release(ctx))
	require.False(t, b.Held())
	require.Contains(t, p.bkt.Objects(), "firnline/leases/x.json")
	require.NoError(t, a.Acquire(ctx))
	require.EqualValues(t, 3, a.Generation())
	require.NoError(t, b.Release(ctx), "what isn't ours is left alone")
	require.NoError(t, a.Renew(ctx))
}

// TestLeaseClocks: our clock may jump; only the bucket's tells whether another's lease lapsed.
func TestLeaseClocks(t *testing.T) {
	ctx, p := context.Background(), newParties()
	a, b := p.lease("a"), p.lease("b")
	require.NoError(t, a.Acquire(ctx))
	p.own.add(30 * 24 * time.Hour)
	var held *block.HeldError
	require.ErrorAs(t, b.Acquire(ctx), &held)
}

// TestLeaseRestart: the next life of a process takes its own lease over at once,
// but two copies of one data folder don't take it from each other for ever.
func TestLeaseRestart(t *testing.T) {
	ctx, p := context.Background(), newParties()
	first := p.lease("a")
	require.NoError(t, first.Acquire(ctx))
	second := p.lease("a")
	require.NoError(t, second.Acquire(ctx))
	var held *block.HeldError
	p.pass(30 * time.Second)
	require.ErrorAs(t, first.Acquire(ctx), &held)
	require.ErrorAs(t, first.Acquire(ctx), &held)
	require.NoError(t, second.Acquire(ctx))
}

// TestLeaseAnswerLost: the write landed, its answer did not, and the retry below
// us was refused.
func TestLeaseAnswerLost(t *testing.T) {
	ctx, p := context.Background(), newParties()
	lossy := &retrying{faulty: p.bkt}
	a := block.NewLease(lossy, block.LeaseConfig{Name: "x", Owner: "a", TTL: time.Minute, Now: p.own.now})
	require.NoError(t, a.Acquire(ctx), "create")
	require.True(t, a.Held())
	require.NoError(t, a.Renew(ctx), "replace")
	require.Equal(t, 2, lossy.refused)
}

// TestLeaseAnswerLostForGood: no retry heard of the write that landed either. Who
// wrote it knows it again, and has not to wait until it lapses.
func TestLeaseAnswerLostForGood(t *testing.T) {
	ctx, p := context.Background(), newParties()
	deaf := &deaf{faulty: p.bkt}
	a := block.NewLease(deaf, block.LeaseConfig{Name: "x", Owner: "a", TTL: time.Minute, Now: p.own.now})
	for range 3 {
		deaf.deaf = true
		require.ErrorIs(t, a.Acquire(ctx), errFault)
		p.bkt.fail = func(op, _ string) error {
			if op == "putif" {
				return errFault
			}
			return nil
		}
		require.ErrorIs(t, a.Acquire(ctx), errFault, "and then one that does not land")
		deaf.deaf, p.bkt.fail = false, nil
		require.NoError(t, a.Acquire(ctx))
		require.True(t, a.Held())
		p.pass(50 * time.Second)
	}
	var held *block.HeldError
	require.ErrorAs(t, p.lease("b").Acquire(ctx), &held)
}

// deaf loses the answers of PutIf.
type deaf struct {
	*faulty
	deaf bool
}

func (d *deaf) PutIf(ctx context.Context, name string, body []byte, etag string) (string, error) {
	etag, err := d.faulty.PutIf(ctx, name, body, etag)
	if err == nil && d.deaf {
		return "", errFault
	}
	return etag, err
}

// retrying sends each PutIf twice, as a client does that got no answer.
type retrying struct {
	*faulty
	refused int
}

func (r *retrying) PutIf(ctx context.Context, name string, body []byte, etag string) (string, error) {
	if _, err := r.faulty.PutIf(ctx, name, body, etag); err != nil {
		return "", err
	}
	etag, err := r.faulty.PutIf(ctx, name, body, etag)
	if r.IsConditionFailedErr(err) {
		r.refused++
	}
	return etag, err
}

func TestLeaseErrors(t *testing.T) {
	ctx, p := context.Background(), newParties()
	a := p.lease("a")
	p.bkt.fail = func(op, _ string) error {
		if op == "putif" {
			return errFault
		}
		return nil
	}
	require.ErrorIs(t, a.Acquire(ctx), errFault)
	require.False(t, a.Held())
	p.bkt.fail = nil
	require.NoError(t, a.Acquire(ctx))

	for body, want := range map[string]error{`{"vers`: block.ErrCorrupt, `{"version":2}`: block.ErrUnknownVersion} {
		require.NoError(t, p.bkt.Memory.Upload(ctx, "firnline/leases/x.json", strings.NewReader(body)))
		require.ErrorIs(t, p.lease("b").Acquire(ctx), want)
	}
	ok, err := block.HonoursConditions(ctx, p.bkt, "a")
	require.NoError(t, err)
	require.True(t, ok)
	p.bkt.fail = func(string, string) error { return errFault }
	_, err = block.HonoursConditions(ctx, p.bkt, "a")
	require.ErrorIs(t, err, errFault)
	p.bkt.fail = func(string, string) error { return errors.ErrUnsupported }
	ok, err = block.HonoursConditions(ctx, p.bkt, "a")
	require.NoError(t, err)
	require.False(t, ok)
}

// TestDelete stops a removal at each DELETE and starts over: a reader never sees
// a block with a meta.json and without its data, and the mark goes last.
//
// RELIABILITY C2 (the order)
func TestDelete(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	m := smallBlock(t, dir)
	for k := range 10 {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			bkt := newFaulty()
			total := len(mustUpload(t, bkt, dir+"/"+m.ULID.String(), m))
			require.NoError(t, block.WriteDeletionMark(ctx, bkt, block.DeletionMark{ID: m.ULID, DeletionTime: 1}))
			require.NoError(t, bkt.Memory.Upload(ctx, block.Name(testID(9), "index"), strings.NewReader("another's")))
			n := 0
			bkt.fail = func(op, _ string) error {
				if op == "delete" {
					if n++; n > k {
						return errFault
					}
				}
				return nil
			}
			err := block.Delete(ctx, bkt, m.ULID)
			if k <= total {
				require.ErrorIs(t, err, errFault)
				require.Contains(t, bkt.Objects(), block.Name(m.ULID, block.DeletionMarkFilename))
				_, visible := bkt.Objects()[block.Name(m.ULID, block.MetaFilename)]
				require.Equal(t, k == 0, visible)
			}
			bkt.fail = nil
			require.NoError(t, block.Delete(ctx, bkt, m.ULID))
			require.Len(t, bkt.Objects(), 1, "another block is left alone")
		})
	}
}

// RELIABILITY B4: age is that of the newest object, by the bucket's clock.
func TestNewestObject(t *testing.T) {
	ctx, p := context.Background(), newParties()
	id := testID(1)
	_, err := block.NewestObject(ctx, p.bkt, id)
	require.ErrorIs(t, err, block.ErrEmpty)
	require.NoError(t, p.bkt.Memory.Upload(ctx, block.Name(id, "chunks/000001"), strings.NewReader("x")))
	p.pass(47 * time.Hour)
	require.NoError(t, p.bkt.Memory.Upload(ctx, block.Name(id, "chunks/000002"), strings.NewReader("x")))
	p.pass(2 * time.Hour)
	newest, err := block.NewestObject(ctx, p.bkt, id)
	require.NoError(t, err)
	now, err := block.BucketTime(ctx, p.bkt, "me")
	require.NoError(t, err)
	require.Equal(t, 2*time.Hour, now.Sub(newest))
}

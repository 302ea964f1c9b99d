package intake

import (
	"context"
	"github.com/prometheus/prometheus/model/labels"
	"time"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/tenant"
)

// Part is what of a request goes to one tenant.
type Part struct {
	Tenant  tenant.ID
	Session batch.Session
	Series  []uint32 // numbers in the Batch, ascending; never changed by anybody
	Samples int      // of these series
}

// scratch is the memory of one Take.
type scratch struct {
	unknown []uint32 // numbers of series that the catalog doesn't have
	special []special
	metered []metered
	fates   []fate
	owner   []*owner // of all series, if some have another one; nil: left out
	tally   []tallied
	left    bool // some series were refused without being learned
}

// special is a series whose class must be looked at.
type special struct {
	series, class, id uint32
}

// metered is a series that counts for others too.
type metered struct {
	series, class uint32
}

// tallied adds up what is refused of one class.
type tallied struct {
	class   uint32
	reason  refuse.Reason
	series  uint32 // the first
	samples int
}

// keptElements bounds the scratch memory that is kept for the next request.
const keptElements = 256 << 10

// sampleEvery is how many series share one that is counted for its metric.
const sampleEvery = 64

// Take names the series of a request and decides which of them are taken, for
// whom. It sets ID and Hash of each; those left out have ID 0. b.Labels gives
// final labels from then on, and is safe to call at once if it was before. What
// is refused is added to t; what is neither in a Part nor there was dropped on
// purpose: by relabelling, or since its pair's other sender is taken.
//
// An error is the refusal of all of the request, b is not to be used then.
func (in *Intake) Take(ctx context.Context, id tenant.ID, b *batch.Batch, t *refuse.Tally) ([]Part, error) {
	now := in.now()
	s, err := in.stateOf(id)
	if err != nil {
		return nil, err
	}
	c := s.cat
	if err := within(id, s.lim, b); err != nil {
		return nil, err
	}
	in.dropFuture(id, s.lim, b, t, now)

	raw := b.Labels
	b.Labels = func(i int) (labels.Labels, error) { return c.rules.final(raw, i) }
	sc := in.scratch.Get().(*scratch) // New makes no other
	defer func() { in.scratch.Put(sc.reset()) }()

	tick := tickOf(now)
	c.recognise(b, sc, tick)
	if len(sc.unknown) > 0 {
		if err := in.learn(ctx, c, sc, lesson{b, raw, s.lim, t, tick}); err != nil {
			return nil, err
		}
	}
	parts := in.parts(c, b, sc, now)
	c.report(sc, raw, t)
	parts = in.withinRate(parts, b, t, now)
	c.meter(b, sc)
	return parts, nil
}

// parts sorts series by owner. Usually there is one, and it has all.
func (in *Intake) parts(c *catalog, b *batch.Batch, sc *scratch, now time.Time) []Part {
	if len(sc.special) == 0 && !sc.left {
		return []Part{{Tenant: c.self.id, Session: c.self.session, Series: in.numbers(len(b.Series)), Samples: b.Samples()}}
	}
	in.judge(c, b, sc, now)
	return split(b, sc)
}

// reset empties sc and keeps its memory, unless a huge request made it large.
func (sc *scratch) reset() *scratch {
	if cap(sc.unknown)+cap(sc.special)+cap(sc.owner) > keptElements {
		return new(scratch)
	}
	sc.unknown, sc.special, sc.metered, sc.owner = sc.unknown[:0], sc.special[:0], sc.metered[:0], sc.owner[:0]
	sc.fates, sc.tally, sc.left = sc.fates[:0], sc.tally[:0], false
	return sc
}

// recognise sets ID and Hash of what the catalog has. A series is expected where
// it followed the one before the last time; the index is asked only where that fails.
func (c *catalog) recognise(b *batch.Batch, sc *scratch, tick uint8) {
	dir := c.entries.load()
	ordinary := uint64(tick) | plainBit
	next := int(-c.phase.Add(uint32(len(b.Series))) % sampleEvery)
	var before *entry
	guess := uint32(1)
	for i := range b.Series {
		s := &b.Series[i]
		e := at(dir, guess)
		if e == nil || !e.is(s.Key) {
			id, found := c.index.find(s.Key, dir)
			if id == 0 {
				s.ID = 0
				sc.unknown = append(sc.unknown, uint32(i))
				continue
			}
			guess, e = id, found
			if before != nil {
				before.follow(id)
			}
		}
		word := e.word.Load()
		if word&(seenBits|plainBit) != ordinary {
			if uint8(word) != tick {
				e.touch(tick)
			}
			if word&plainBit == 0 {
				sc.special = append(sc.special, special{uint32(i), classOf(word), guess})
			}
		}
		if i >= next {
			sc.metered = append(sc.metered, metered{uint32(i), classOf(word)})
			next += sampleEvery
		}
		s.ID, s.Hash = uint64(guess), e.hash.Load()
		before, guess = e, uint32(word>>nextAt)
	}
}

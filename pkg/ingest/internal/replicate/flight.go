package replicate

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/ingest/internal/ring"
)

// flight is a Write under way. Those who read it hold it: its writer, and each
// owner until it has answered. The last one gives it back.
type flight struct {
	r       *Replicator
	write   batch.Write
	release func()
	holders atomic.Int32
	cancel  context.CancelFunc

	split   split
	decided chan struct{} // closed when no series is open

	mu     sync.Mutex // of all below, and of the votes in split.sets
	open   int        // sets and odd series that are open
	over   bool       // the writer has its answer: no votes count any more
	causes []cause    // by number in split.sets
	odd    map[uint32]*oddSeries
}

// oddSeries is a series of which an owner refused something while it took others of the same set.
type oddSeries struct {
	set     uint32
	settled bool
	by      []refusedBy
}

// refusedBy is what one owner refused of a series.
type refusedBy struct {
	owner      uint16
	hard, soft int             // samples refused for good, and those that may pass
	why        []batch.Refused // those for good
	pass       *refuse.Error   // the worst of the others
}

func (r *Replicator) flight(w *batch.Write, release func()) *flight {
	f, ok := r.flights.Get().(*flight)
	if !ok {
		f = &flight{r: r, odd: map[uint32]*oddSeries{}}
	}
	f.write, f.release = *w, release
	f.decided, f.open, f.over = make(chan struct{}), 0, false
	return f
}

// done lets go of f.
func (f *flight) done() {
	if f.holders.Add(-1) > 0 {
		return
	}
	f.cancel()
	f.release()
	f.write, f.release, f.cancel = batch.Write{}, nil, nil
	clear(f.odd)
	clear(f.causes)
	f.r.flights.Put(f)
}

// start asks all owners at once.
func (f *flight) start(ctx context.Context, v *ring.View) {
	f.holders.Store(int32(len(f.split.owners)) + 1)
	f.causes = append(f.causes[:0], make([]cause, len(f.split.sets))...)
	for i, u := range f.split.sets {
		if u.votes.verdict() == open {
			f.open++
			continue
		}
		f.causes[i].failed = f.r.tooFew(&f.write, u.votes)
	}
	if f.open == 0 {
		close(f.decided)
	}
	// Not the request's own context: an answer that comes after the quorum is a copy all the same.
	ctx, f.cancel = context.WithTimeout(context.WithoutCancel(ctx), time.Duration(f.r.cfg.Timeout))
	instances := v.Instances()
	for i := range f.split.owners {
		p := &f.split.owners[i]
		owner := f.r.owner(instances[p.instance])
		if len(f.split.owners) == 1 {
			f.ask(ctx, owner, p) // nobody else to wait for
			return
		}
		f.r.running.Go(func() { f.ask(ctx, owner, p) })
	}
}

// ask sends an owner its part and counts its votes.
func (f *flight) ask(ctx context.Context, o Owner, p *part) {
	defer f.done()
	w := f.write
	w.Only = p.series
	res, err := o.Append(ctx, &w)
	if err == nil && len(res.Unknown) > 0 {
		err = unknownSeries(&w)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over || f.open == 0 {
		f.r.metrics.late.Inc()
		return
	}
	f.vote(p, res, err)
	if f.open == 0 {
		close(f.decided)
	}
}

// vote counts an owner's answer. f.mu is held.
func (f *flight) vote(p *part, res batch.Result, err error) {
	for _, n := range p.sets {
		f.voteSet(n, err)
	}
	if err == nil {
		for _, x := range res.Refused {
			f.except(p, x)
		}
	}
	for n, o := range f.odd {
		if !o.settled && o.decided(f.split.sets[o.set].votes, samples(f.write.Batch, n)) {
			o.settled = true
			f.open--
		}
	}
}

// voteSet counts what an owner said of all series of a set.
func (f *flight) voteSet(n uint32, err error) {
	v := &f.split.sets[n].votes
	was := v.verdict()
	switch e := asRefusal(&f.write, err); {
	case err == nil:
		v.ok++
	case e.Reason.Retry():
		v.failed++
		f.causes[n].failed = worse(f.causes[n].failed, e)
	default:
		v.refused++
		f.causes[n].refused = worse(f.causes[n].refused, e)
	}
	if was == open && v.verdict() != open {
		f.open--
	}
}

// except counts what an owner refused of one series of a set that it took.
func (f *flight) except(p *part, x batch.Refused) {
	o := f.odd[x.Series]
	if o == nil {
		at, _ := slices.BinarySearch(f.write.Only, x.Series)
		o = &oddSeries{set: f.split.of[at]}
		f.odd[x.Series] = o
		f.open++
	}
	if n := len(o.by); n == 0 || o.by[n-1].owner != p.instance {
		o.by = append(o.by, refusedBy{owner: p.instance})
	}
	by := &o.by[len(o.by)-1]
	if !x.Err.Reason.Retry() {
		by.hard += x.Samples
		by.why = append(by.why, x)
		return
	}
	by.soft += x.Samples
	by.pass = worse(by.pass, x.Err)
}

// decided tells whether answers that are missing change nothing for an odd series.
func (o *oddSeries) decided(v votes, all int) bool {
	missing := v.owners - v.ok - v.refused - v.failed
	taken, refused := v, v
	taken.ok += missing
	refused.refused += missing
	written, hard, _ := o.counts(v, all)
	mostWritten, _, _ := o.counts(taken, all)
	_, mostHard, _ := o.counts(refused, all)
	return written == mostWritten && hard == mostHard
}

// wait waits until all is decided, the request is given up or its time is over.
func (f *flight) wait(ctx context.Context) {
	select { // mostly it is
	case <-f.decided:
		return
	default:
	}
	timeout := time.NewTimer(time.Duration(f.r.cfg.Timeout) + grace)
	defer timeout.Stop()
	select {
	case <-f.decided:
	case <-ctx.Done():
	case <-timeout.C:
	}
}

// grace is for owners to say themselves that their time is over.
const grace = 100 * time.Millisecond

// report adds what was not accepted to t.
func (f *flight) report(t *refuse.Tally) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	if len(f.odd) == 0 && !slices.ContainsFunc(f.split.sets, func(u usedSet) bool { return u.votes.verdict() != accepted }) {
		return
	}
	if len(f.write.Only) == 0 { // families alone: an error about no samples
		if e := f.causes[0].refused; f.split.sets[0].votes.verdict() == refused {
			t.Add(e.Reason, 0, func() *refuse.Error { return e })
		} else {
			f.reportFailed(t, 0, 0, nil)
		}
	}
	for i, n := range f.write.Only {
		set := f.split.of[i]
		if o := f.odd[n]; o != nil {
			f.reportOdd(t, n, o)
			continue
		}
		switch f.split.sets[set].votes.verdict() {
		case refused:
			e := f.causes[set].refused
			t.Add(e.Reason, samples(f.write.Batch, n), func() *refuse.Error { return e })
		case failed, open:
			f.reportFailed(t, samples(f.write.Batch, n), set, nil)
		}
	}
}

// reportOdd adds what was not accepted of a series that owners took in part: samples
// that are refused for good, and those that may have a quorum later.
func (f *flight) reportOdd(t *refuse.Tally, n uint32, o *oddSeries) {
	all := samples(f.write.Batch, n)
	written, hard, by := o.counts(f.split.sets[o.set].votes, all)
	switch {
	case by != nil:
		for _, x := range by.why {
			t.Add(x.Err.Reason, x.Samples, func() *refuse.Error { return x.Err })
		}
	case hard > 0:
		e := f.causes[o.set].refused
		t.Add(e.Reason, hard, func() *refuse.Error { return e })
	}
	if left := all - written - hard; left > 0 {
		f.reportFailed(t, left, o.set, o)
	}
}

// counts tells how many samples of a series have a quorum, and how many are
// refused by so many owners that they can't have one; by says why, nil: as all of the set.
// Owners tell numbers, not which samples: what one of them refuses is taken to be among what another
// one does that refuses more, as it is where they have the same samples.
func (o *oddSeries) counts(v votes, all int) (written, hard int, by *refusedBy) {
	taken, refusals := make([]int, 0, v.owners), make([]*refusedBy, 0, v.owners)
	for range int(v.ok) - len(o.by) {
		taken = append(taken, all)
	}
	for i := range o.by {
		taken = append(taken, all-o.by[i].hard-o.by[i].soft)
		refusals = append(refusals, &o.by[i])
	}
	slices.SortFunc(taken, func(a, b int) int { return b - a })
	if q := int(v.quorum); len(taken) >= q {
		written = taken[q-1]
	}
	slices.SortFunc(refusals, func(a, b *refusedBy) int { return b.hard - a.hard })
	switch need := int(v.owners) - int(v.quorum) - int(v.refused); { // beside those that refused all of the set
	case need < 0:
		return 0, all, nil
	case need < len(refusals):
		by = refusals[need]
		return written, by.hard, by
	}
	return written, 0, nil
}

// reportFailed adds samples of a series that may have a quorum later.
func (f *flight) reportFailed(t *refuse.Tally, samples int, set uint32, o *oddSeries) {
	e := f.causes[set].failed
	if o != nil {
		for i := range o.by {
			e = worse(e, o.by[i].pass)
		}
	}
	if e == nil {
		e = refuse.Errorf(refuse.Unavailable, f.write.Tenant, "too few of the nodes that own a series have confirmed it in time")
	}
	t.Add(e.Reason, samples, func() *refuse.Error { return e })
}

// cause is why owners did not take the series of a set.
type cause struct{ refused, failed *refuse.Error }

// worse returns the error that tells a sender more: 503 before 429 before others.
func worse(a, b *refuse.Error) *refuse.Error {
	if a == nil || b != nil && b.Reason.Status() > a.Reason.Status() {
		return b
	}
	return a
}

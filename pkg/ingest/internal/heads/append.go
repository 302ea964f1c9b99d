package heads

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/tenant"
)

// Append appends the series of a Write. What is good is taken even if the rest
// is not; an error is a *refuse.Error and means that the sender has to send all of it
// again, though some may have been taken.
//
// A write that comes between another one's samples and their commit may be
// overtaken: the TSDB then leaves older samples out without a word. That is
// noticed and answered 503, so that the next try tells which they are. What is not noticed is
// another value for the time of a sample that came at the same moment: the first stays.
func (hs *Heads) Append(ctx context.Context, w *batch.Write) (batch.Result, error) {
	if err := hs.Ready(); err != nil {
		return batch.Result{}, refuse.Errorf(refuse.NotReady, w.Tenant, "%s", err)
	}
	if err := hs.disk.check(); err != nil {
		return batch.Result{}, unavailable(w.Tenant, err)
	}
	h, err := hs.acquire(ctx, w.Tenant)
	if err != nil {
		return batch.Result{}, err
	}
	defer h.release()
	return h.append(ctx, w)
}

func unavailable(id tenant.ID, err error) *refuse.Error {
	return refuse.Errorf(refuse.Unavailable, id, "tenant %s: %s", id, err)
}

func (h *head) append(ctx context.Context, w *batch.Write) (batch.Result, error) {
	if err := h.failure(); err != nil {
		return batch.Result{}, unavailable(h.id, err)
	}
	if err := h.apply(h.heads.limits(h.id)); err != nil {
		return batch.Result{}, unavailable(h.id, err)
	}
	h.offered.Store(h.heads.now().UnixNano()) // before there are samples, which may be of long ago
	result, err := h.commitBetweenCuts(ctx, w)
	if err != nil {
		return batch.Result{}, err
	}
	h.appended.Store(h.heads.now().UnixNano())
	h.families.add(w.Batch.Families)
	for _, r := range result.Refused {
		h.heads.metrics.refused.WithLabelValues(string(r.Err.Reason)).Add(float64(r.Samples))
	}
	h.heads.metrics.unknown.Add(float64(len(result.Unknown)))
	if h.syncer == nil {
		return result, nil
	}
	if err := h.syncer.wait(ctx); err != nil {
		if failed := h.syncer.failed(); failed != nil {
			h.fail(failed)
		}
		return batch.Result{}, unavailable(h.id, err)
	}
	return result, nil
}

// cutPatience is how long a write waits while its head is being cut: enough for
// a small one, or for a change of settings.
const cutPatience = 100 * time.Millisecond

// commitBetweenCuts is commit while the head is not being cut as a whole.
func (h *head) commitBetweenCuts(ctx context.Context, w *batch.Write) (batch.Result, error) {
	for waited := time.Duration(0); !h.cutting.TryRLock(); waited += cutPatience / 10 {
		if waited >= cutPatience || ctx.Err() != nil {
			return batch.Result{}, refuse.Errorf(refuse.NotReady, h.id, "tenant %s: its head is being cut into blocks; send again in some seconds", h.id)
		}
		time.Sleep(cutPatience / 10)
	}
	defer h.cutting.RUnlock()
	return h.commit(ctx, w)
}

// commit appends to the head and writes the log.
func (h *head) commit(ctx context.Context, w *batch.Write) (batch.Result, error) {
	a := appending{
		head: h, write: w, b: w.Batch, table: h.sessions.table(w.Session),
		latest: math.MaxInt64, settledFloats: h.floats.settled.Load(), settledHistograms: h.histograms.settled.Load(),
	}
	a.app = h.db.AppenderV2(ctx) // after what is settled was read
	if ahead := time.Duration(h.heads.cfg.TooFarAhead); ahead > 0 {
		a.latest = h.heads.now().Add(ahead).UnixMilli()
	}
	if err := a.offerAll(); err != nil {
		return batch.Result{}, errors.Join(err, a.app.Rollback())
	}
	err := h.heads.fault("append/commit")
	if err == nil {
		err = a.app.Commit()
	} else {
		err = errors.Join(err, a.app.Rollback())
	}
	if err != nil {
		h.fail(fmt.Errorf("write the log: %w", err))
		return batch.Result{}, unavailable(h.id, err)
	}
	// Also if our records are in the log: they may follow a torn one of somebody else's.
	for _, name := range []string{walFailed, wblFailed} {
		if h.counters.value(name) > 0 {
			h.fail(fmt.Errorf("%w (%s)", errTorn, name))
			return batch.Result{}, unavailable(h.id, h.failure())
		}
	}
	lost, err := a.leftOut()
	if err != nil {
		return batch.Result{}, unavailable(h.id, err)
	}
	if lost {
		h.heads.metrics.overtaken.Inc()
		return batch.Result{}, refuse.Errorf(refuse.Unavailable, h.id, "tenant %s: newer samples of the same series came at the same time; send again to learn which are refused", h.id)
	}
	h.notes.add(a.heard)
	return a.result, nil
}

// appending is one Write on its way into the head. Its sums are bounded by the Write.
type appending struct {
	head   *head
	write  *batch.Write
	b      *batch.Batch
	table  *table
	app    storage.AppenderV2
	latest int64 // ms; later samples are refused
	result batch.Result
	shared map[refuse.Reason]*refuse.Error // second and further refusals of a reason
	labels labels.ScratchBuilder
	heard  []heard

	settledFloats, settledHistograms int64 // before anything was offered
	doubts                           []doubt
}

// offerAll offers the samples to the TSDB, which tells of some at once that it won't have them.
func (a *appending) offerAll() error {
	a.head.offering.RLock()
	defer a.head.offering.RUnlock()
	for _, n := range a.write.Only {
		if err := a.series(n); err != nil {
			return err
		}
	}
	return nil
}

// series appends what one series brings. It returns an error only for what is
// nobody's fault but ours.
func (a *appending) series(n uint32) error {
	s := &a.b.Series[n]
	one := appendingSeries{appending: a, n: n}
	known := a.table.get(s.ID)
	one.ref = known
	if known == 0 && !one.define() {
		return nil
	}
	for i := s.Floats.From; i < s.Floats.To && !one.over; i++ {
		f := &a.b.Floats[i]
		if err := one.sample(sample{ST: f.ST, T: f.T, V: f.V}); err != nil {
			return err
		}
	}
	for i := s.Histograms.From; i < s.Histograms.To && !one.over; i++ {
		hi := &a.b.Histograms[i]
		// Copies: the head keeps the last one, and changes those it encodes.
		smp := sample{ST: hi.ST, T: hi.T}
		if hi.H != nil {
			smp.H = hi.H.Copy()
		} else if hi.FH != nil {
			smp.FH = hi.FH.Copy()
		}
		if err := one.sample(smp); err != nil {
			return err
		}
	}
	if one.ref != known && one.ref != 0 && !one.over {
		if err := a.table.set(s.ID, one.ref); err != nil {
			return refuse.Errorf(refuse.BadRequest, a.head.id, "%s", err)
		}
	}
	if s.Exemplars.Len() > 0 && one.ref != 0 && (a.head.heads.cfg.MaxExemplars > 0 || a.head.notes != nil) {
		a.exemplars(one.ref, a.b.Exemplars[s.Exemplars.From:s.Exemplars.To])
	}
	return nil
}

// exemplars appends exemplars of a series that has samples. Those not taken are
// counted and nothing else: no sender can do anything about them.
func (a *appending) exemplars(ref storage.SeriesRef, in []exemplar.Exemplar) {
	out := make([]exemplar.Exemplar, len(in))
	for i, e := range in {
		a.labels.Reset()
		e.Labels.Range(func(l labels.Label) { a.labels.Add(l.Name, l.Value) })
		e.Labels = a.labels.Labels() // memory of its own: the store keeps it
		out[i] = e
	}
	bad := a.store(ref, out)
	if bad == 0 && a.head.notes != nil {
		a.heard = append(a.heard, heard{ref: ref, list: out})
	}
	a.head.heads.metrics.exemplarsBad.Add(float64(bad))
}

// store has the TSDB keep exemplars in memory, if it is to, and returns how many
// it did not take. If it keeps none they are looked at in its place.
func (a *appending) store(ref storage.SeriesRef, list []exemplar.Exemplar) (bad int) {
	app, ok := a.app.(storage.ExemplarAppenderV2)
	if a.head.heads.cfg.MaxExemplars == 0 || !ok {
		for _, e := range list {
			if !fits(e) {
				bad++
			}
		}
		return bad
	}
	_, err := app.AppendExemplars(ref, labels.EmptyLabels(), list)
	if partial, ok := errors.AsType[*storage.AppendPartialError](err); ok {
		return len(partial.ExemplarErrors)
	}
	if err != nil {
		return len(list)
	}
	return 0
}

package intake

import (
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/firnline/firnline/pkg/ingest/internal/limits"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/tenant"
)

// rules decides the fate of a series by its labels alone: a pure function of
// the limits of the request's tenant. Safe to call at once.
type rules struct {
	own   tenant.ID
	lim   *limits.Limits
	split string   // label that names the tenant; "": none does
	names []string // of active_series
}

// fate is what becomes of a series.
type fate struct {
	labels  labels.Labels // final
	tenant  tenant.ID
	cluster string // of the pair of senders it came from; "": none
	replica string
	dropped bool          // by relabelling
	err     *refuse.Error // nil: it is taken or dropped
}

func newRules(own tenant.ID, lim *limits.Limits, split string) *rules {
	return &rules{own: own, lim: lim, split: split, names: lim.ActiveSeries.Names()}
}

// decide goes: valid → relabelled → of its tenant → of its pair → within limits.
func (r *rules) decide(raw labels.Labels) fate {
	f := fate{tenant: r.own}
	raw = ordered(raw).WithoutEmpty()
	if f.err = r.valid(raw); f.err != nil {
		return f
	}
	b := labels.NewBuilder(raw)
	if !relabel.ProcessBuilder(b, r.lim.RelabelConfigs...) {
		return fate{dropped: true, tenant: r.own}
	}
	if f.err = r.splitTenant(b, &f); f.err != nil {
		return f
	}
	r.splitReplica(b, &f)
	f.labels = b.Labels()
	if f.labels.IsEmpty() {
		f.dropped = true
		return f
	}
	for i := range r.lim.Drop {
		if r.lim.Drop[i].Matches(f.labels) {
			f.dropped = true
			return f
		}
	}
	f.err = r.within(f.labels)
	return f
}

// ordered sorts labels that are not.
func ordered(l labels.Labels) labels.Labels {
	sorted, last := true, ""
	l.Range(func(l labels.Label) {
		sorted = sorted && last <= l.Name
		last = l.Name
	})
	if sorted {
		return l
	}
	b := labels.NewScratchBuilder(l.Len())
	l.Range(func(l labels.Label) { b.Add(l.Name, l.Value) })
	b.Sort()
	return b.Labels()
}

// valid checks what no relabelling can mend.
func (r *rules) valid(l labels.Labels) *refuse.Error {
	if l.IsEmpty() {
		return r.refused(refuse.BadLabels, "series %s has no labels; send at least %s", l, model.MetricNameLabel)
	}
	var wrong *refuse.Error
	last := ""
	l.Range(func(one labels.Label) {
		switch {
		case wrong != nil:
		case one.Name == "":
			wrong = r.refused(refuse.BadLabels, "series %s has a label without a name", l)
		case one.Name == last:
			wrong = r.refused(refuse.BadLabels, "series %s has the label %q twice; send each once", l, short(one.Name))
		case !utf8.ValidString(one.Name):
			wrong = r.refused(refuse.BadLabels, "series %s has a label name %q that is not UTF-8", l, short(one.Name))
		case !utf8.ValidString(one.Value):
			wrong = r.refused(refuse.BadLabels, "series %s has a value %q of label %q that is not UTF-8", l, short(one.Value), short(one.Name))
		}
		last = one.Name
	})
	return wrong
}

// splitTenant takes the tenant from its label and the label away.
func (r *rules) splitTenant(b *labels.Builder, f *fate) *refuse.Error {
	if r.split == "" {
		return nil
	}
	value := b.Get(r.split)
	if value == "" {
		return nil
	}
	id, err := tenant.Parse(value)
	if err != nil {
		return r.refused(refuse.BadTenant, "series %s: label %s names its tenant: %v", b.Labels(), r.split, err)
	}
	f.tenant = id
	b.Del(r.split)
	return nil
}

// splitReplica takes the sender of a pair from its labels and the replica's away.
func (r *rules) splitReplica(b *labels.Builder, f *fate) {
	ha := &r.lim.HA
	if !ha.Enabled {
		return
	}
	cluster, replica := b.Get(ha.ClusterLabel), b.Get(ha.ReplicaLabel)
	if cluster == "" || replica == "" {
		return
	}
	f.cluster, f.replica = cluster, replica
	b.Del(ha.ReplicaLabel)
}

// within holds final labels against limits.
func (r *rules) within(l labels.Labels) *refuse.Error {
	if !model.UTF8Validation.IsValidMetricName(l.Get(model.MetricNameLabel)) {
		return r.refused(refuse.BadLabels, "series %s has no name of a metric; send the label %s", l, model.MetricNameLabel)
	}
	if n, most := l.Len(), r.lim.MaxLabels; most > 0 && n > most {
		return r.refused(refuse.TooManyLabels, "series %s has %d labels, limit %d (max_labels of tenant %s); drop some of them or raise it", l, n, most, r.own)
	}
	var wrong *refuse.Error
	l.Range(func(one labels.Label) {
		if n, most := len(one.Name), r.lim.MaxLabelNameBytes; wrong == nil && most > 0 && n > most {
			wrong = r.refused(refuse.LabelNameTooLong, "series %s has a label name %q of %d bytes, limit %d (max_label_name_bytes of tenant %s)",
				l, short(one.Name), n, most, r.own)
		}
		if n, most := len(one.Value), r.lim.MaxLabelValueBytes; wrong == nil && most > 0 && n > most {
			wrong = r.refused(refuse.LabelValueTooLong, "series %s has a value %q of label %q of %d bytes, limit %d (max_label_value_bytes of tenant %s)",
				l, short(one.Value), short(one.Name), n, most, r.own)
		}
	})
	return wrong
}

// shownBytes bounds what an error shows of a series or a value.
const shownBytes = 300

// refused makes the refusal of a series.
func (r *rules) refused(reason refuse.Reason, format string, l labels.Labels, args ...any) *refuse.Error {
	return refuse.Errorf(reason, r.own, format, append([]any{short(l.String())}, args...)...)
}

func short(s string) string {
	if len(s) <= shownBytes {
		return s
	}
	cut := shownBytes
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// HashOf places a series on the ring, as Thanos' receive does: xxhash64 of
// tenant, names and values, each followed by 0xff.
func HashOf(id tenant.ID, l labels.Labels) uint64 {
	const sep = 0xff
	b := make([]byte, 0, 1<<10)
	b = append(append(b, id...), sep)
	l.Range(func(l labels.Label) {
		b = append(append(b, l.Name...), sep)
		b = append(append(b, l.Value...), sep)
	})
	return xxhash.Sum64(b)
}

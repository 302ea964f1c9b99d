package wire

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// appended is one sample that the library made.
type appended struct {
	labels    labels.Labels
	float     batch.Float
	histogram batch.Histogram
	exemplars []exemplar.Exemplar
	family    batch.Family
}

// library is Prometheus' translation of OTLP, and an appender that collects
// what it makes. Nothing of a result points into a request.
type library struct {
	converter *prometheusremotewrite.PrometheusConverter
	got       []appended
}

// translate translates a request. What was made before an error is in the result too.
func (d *Decoder) translate(p []byte, settings prometheusremotewrite.Settings) ([]appended, error) {
	md, err := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(p)
	if err != nil {
		return nil, err
	}
	l, ok := d.libraries.Get().(*library)
	if !ok {
		l = &library{converter: prometheusremotewrite.NewPrometheusConverter(nil)}
	}
	defer d.libraries.Put(l)
	l.got = nil
	l.converter.Reset(l)
	_, err = l.converter.FromMetrics(context.Background(), md, settings)
	l.converter.Reset(nil)
	return l.got, err
}

// Append implements storage.AppenderV2.
//
//nolint:revive // the arguments are storage.AppenderV2's
func (l *library) Append(_ storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, opts storage.AppendV2Options) (storage.SeriesRef, error) {
	a := appended{labels: ls, family: batch.Family{Name: opts.MetricFamilyName, Metadata: opts.Metadata}}
	if h == nil && fh == nil {
		a.float = batch.Float{ST: st, T: t, V: v}
	} else {
		a.histogram = batch.Histogram{ST: st, T: t, H: h, FH: fh}
	}
	if len(opts.Exemplars) > 0 {
		a.exemplars = append(a.exemplars, opts.Exemplars...)
	}
	l.got = append(l.got, a)
	return 0, nil
}

// Commit implements storage.AppenderV2. The library never calls it.
func (l *library) Commit() error { return nil }

// Rollback implements storage.AppenderV2. The library never calls it.
func (l *library) Rollback() error { return nil }

var _ storage.AppenderV2 = (*library)(nil)

// family is what the library says about a metric, or why it refuses it.
type family struct {
	batch.Family
	err error
}

// target tells whether a resource has a target_info, and the hash of its labels.
type target struct {
	is   bool
	hash uint64
}

// targetInfo is the metric that describes a resource.
const targetInfo = "target_info"

// targetLabels are those of the target_info of a resource, or none. The library
// makes it beside any metric of the resource; the one used here has no name, which
// is an error, but the resource is described nevertheless.
func (r *request) targetLabels(resource span) labels.Labels {
	settings := r.otlp.tr.settings
	settings.DisableTargetInfo = false
	m := otlpMetric{resource: resource, kind: gaugeData}
	w := r.d.otlpWriter()
	defer r.d.putBack(w)
	w.points = field(w.points, 1, []byte{3<<3 | wireFixed64, 1, 0, 0, 0, 0, 0, 0, 0})
	w.endMetric(r.body.b, &m)
	got, _ := r.guarded(w.request(r.body.b, &m), settings)
	for _, a := range got {
		if a.family.Name == r.otlp.tr.targetInfo {
			return a.labels
		}
	}
	return labels.EmptyLabels()
}

// alone lets the library translate one metric with some of its data points, which are fields of number 1.
func (r *request) alone(m *otlpMetric, points []byte) ([]appended, error) {
	w := r.d.otlpWriter()
	defer r.d.putBack(w)
	w.points = append(w.points, points...)
	w.endMetric(r.body.b, m)
	return r.guarded(w.request(r.body.b, m), r.otlp.tr.settings)
}

// guarded checks what is to be given to the library, and gives it.
func (r *request) guarded(p []byte, settings prometheusremotewrite.Settings) ([]appended, error) {
	s := scanner{b: p, end: len(p), protocol: "OTLP metric"}
	room := guardedPerItem * r.d.cfg.MaxItems
	if guard(&s, request0, 0, &room); s.err != nil {
		return nil, s.err
	}
	got, err := r.d.translate(p, settings)
	if err != nil {
		return got, fmt.Errorf("translate: %w", err)
	}
	return got, nil
}

// namedSeries are the labels of series [from, from+len(got)) of a request.
type namedSeries struct {
	from int
	got  []appended
}

// mostNamed bounds how many series are named at once.
const mostNamed = 64

// labelsOTLP makes the labels of series i. New series mostly come together, and
// the library works on a resource and a scope before it comes to a point, so that
// series that follow are named too, twice as many as the last time.
func (r *request) labelsOTLP(i int) (labels.Labels, error) {
	switch o := &r.otlp.origins[i]; o.metric {
	case ofLibrary:
		return o.made, nil
	case ofTarget:
		return r.targetLabels(o.point), nil
	}
	n := 1
	if s := r.otlp.named.Load(); s != nil {
		if k := i - s.from; k >= 0 && k < len(s.got) {
			return s.got[k].labels, nil
		} else if k == len(s.got) || k == len(s.got)+1 { // a target_info may stand between two resources
			n = min(2*len(s.got), mostNamed)
		}
	}
	w := r.d.otlpWriter()
	defer r.d.putBack(w)
	p, from, count := r.following(w, i, n)
	got, err := r.guarded(p, r.otlp.tr.settings)
	if err != nil || len(got) != count {
		p, from, count = r.following(w, i, 1) // one of them is bad: who?
		got, err = r.guarded(p, r.otlp.tr.settings)
	}
	if err == nil && len(got) != count {
		err = fmt.Errorf("%d series are made of it where %d are expected", len(got), count)
	}
	if err != nil {
		var e *refuse.Error
		if errors.As(err, &e) {
			return labels.EmptyLabels(), err
		}
		return labels.EmptyLabels(), refuse.Errorf(refuse.BadLabels, "", "OTLP data point at byte %d: %v", r.otlp.origins[i].point.from, err)
	}
	r.otlp.named.Store(&namedSeries{from, got})
	return got[i-from].labels, nil
}

// following writes a request of the data point of series i and those behind it, of at least n series
// if there are as many under the same resource and scope. It returns the first series and their count.
// p is good until w is used again.
func (r *request) following(w *otlpWriter, i, n int) (p []byte, from, count int) {
	origins := r.otlp.origins
	from = i - int(origins[i].nth)
	first := &r.otlp.metrics[origins[i].metric]
	w.reset()
	end := from
	for end < len(origins) && (end < from+n || origins[end].nth > 0) {
		o := &origins[end]
		if o.metric < 0 {
			break
		}
		m := &r.otlp.metrics[o.metric]
		if m.resource != first.resource || m.scope != first.scope || m.schema != first.schema {
			break
		}
		if o.nth == 0 {
			w.points = field(w.points, 1, r.body.b[o.point.from:o.point.to])
		}
		end++
		if end == len(origins) || origins[end].metric != o.metric {
			w.endMetric(r.body.b, m)
		}
	}
	if len(w.points) > 0 {
		w.endMetric(r.body.b, &r.otlp.metrics[origins[end-1].metric])
	}
	return w.request(r.body.b, first), from, end - from
}

package wire

import (
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

// targetInfo adds the series that describes a resource.
func (w *otlpWalk) targetInfo(resource span) {
	t := w.target(resource)
	if !t.is {
		return
	}
	sr := newSeries(w.into)
	w.hashed = append(appendKey(w.hashed[:0], w.resourceKey), targetInfo...)
	sr.Key = w.d.key(w.hashed)
	first, last := time.Unix(0, int64(w.earliest)), time.Unix(0, int64(w.latest))
	interval := max(time.Duration(w.otlp.tr.opts.LookbackDelta)/2, last.Sub(first)/maxTargetSamples)
	for at := first; at.Before(last); at = at.Add(interval) {
		w.targetSample(t, at.UnixMilli())
	}
	w.targetSample(t, last.UnixMilli())
	if len(w.into.Floats) == int(sr.Floats.From) {
		return // another resource has said all of it
	}
	if !w.otlp.described {
		w.otlp.described = true
		w.into.Families = append(w.into.Families, batch.Family{Name: w.otlp.tr.targetInfo, Metadata: metadata.Metadata{Type: model.MetricTypeGauge, Help: "Target metadata"}})
	}
	finish(&sr, w.into)
	w.otlp.origins = append(w.otlp.origins, origin{metric: ofTarget, point: resource})
}

func (w *otlpWalk) targetSample(t target, ms int64) {
	k := targetSample{t.hash, ms}
	if _, ok := w.otlp.targets[k]; ok {
		return
	}
	if w.otlp.targets == nil {
		w.otlp.targets = map[targetSample]struct{}{}
	}
	w.otlp.targets[k] = struct{}{}
	w.take(w.scanner, 1)
	w.into.Floats = append(w.into.Floats, batch.Float{T: ms, V: 1})
}

// target tells whether a resource has a target_info, remembered by its bytes.
func (w *otlpWalk) target(resource span) target {
	t, ok := w.otlp.tr.targets.get(w.resourceKey)
	if ok {
		return t
	}
	if ls := w.targetLabels(resource); !ls.IsEmpty() {
		t = target{is: true, hash: ls.Hash()}
	}
	w.otlp.tr.targets.put(w.resourceKey, t)
	return t
}

package api

import (
	"encoding/json"
	"fmt"
	"io"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/jsonutil"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/firnline/firnline/pkg/storeapi"
)

// flushBytes is how much of an answer is held before it is sent on.
const flushBytes = 64 << 10

// stream writes JSON to a client through a bounded buffer, so that an answer
// is never in memory a second time as text. Errors of writing come out of step and Flush.
type stream struct{ *jsoniter.Stream }

func newStream(w io.Writer) *stream {
	return &stream{jsoniter.NewStream(jsoniter.ConfigCompatibleWithStandardLibrary, w, flushBytes+4096)}
}

// step sends what has gathered once that is much.
func (s *stream) step() error {
	if s.Buffered() < flushBytes {
		return s.Error
	}
	return s.Flush()
}

// list writes n elements as an array, which is [] when there are none.
func (s *stream) list(n int, element func(i int) error) error {
	s.WriteArrayStart()
	for i := range n {
		if i > 0 {
			s.WriteMore()
		}
		if err := element(i); err != nil {
			return err
		}
		if err := s.step(); err != nil {
			return err
		}
	}
	s.WriteArrayEnd()
	return nil
}

// texts writes a list of strings.
func (s *stream) texts(texts []string) error {
	return s.list(len(texts), func(i int) error {
		s.WriteStringWithHTMLEscaped(texts[i])
		return nil
	})
}

// labels writes {"name":"value",…}. As in Prometheus, <, > and & stand as they are.
func (s *stream) labels(lset labels.Labels) {
	s.WriteObjectStart()
	first := true
	lset.Range(func(l labels.Label) {
		if !first {
			s.WriteMore()
		}
		first = false
		s.WriteString(l.Name)
		s.WriteRaw(":")
		s.WriteString(l.Value)
	})
	s.WriteObjectEnd()
}

// result writes what query and query_range answer: {"resultType":…,"result":…,"stats":…}.
func (s *stream) result(v parser.Value, qs stats.QueryStats) error {
	s.WriteRaw(`{"resultType":"` + string(v.Type()) + `","result":`)
	if err := s.value(v); err != nil {
		return err
	}
	if qs != nil {
		b, err := json.Marshal(qs)
		if err != nil {
			return err
		}
		s.WriteRaw(`,"stats":`)
		s.WriteRaw(string(b))
	}
	s.WriteRaw("}")
	return s.step()
}

func (s *stream) value(v parser.Value) error {
	switch v := v.(type) {
	case promql.Matrix:
		return s.list(len(v), func(i int) error { return s.series(&v[i]) })
	case promql.Vector:
		return s.list(len(v), func(i int) error { s.sample(&v[i]); return nil })
	default: // promql.Scalar or promql.String, whose numbers have another form than those of series
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode %s: %w", v.Type(), err)
		}
		s.WriteRaw(string(b))
	}
	return nil
}

// series writes {"metric":{…},"values":[…],"histograms":[…]}, without the lists that are empty.
func (s *stream) series(series *promql.Series) error {
	s.WriteRaw(`{"metric":`)
	s.labels(series.Metric)
	if len(series.Floats) > 0 {
		s.WriteRaw(`,"values":`)
		err := s.list(len(series.Floats), func(i int) error {
			s.point(series.Floats[i].T, series.Floats[i].F)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(series.Histograms) > 0 {
		s.WriteRaw(`,"histograms":`)
		err := s.list(len(series.Histograms), func(i int) error {
			s.histogram(series.Histograms[i])
			return nil
		})
		if err != nil {
			return err
		}
	}
	s.WriteRaw("}")
	return nil
}

// sample writes {"metric":{…},"value":[…]}, or "histogram" in place of "value".
func (s *stream) sample(sample *promql.Sample) {
	s.WriteRaw(`{"metric":`)
	s.labels(sample.Metric)
	if sample.H != nil {
		s.WriteRaw(`,"histogram":`)
		s.histogram(promql.HPoint{T: sample.T, H: sample.H})
	} else {
		s.WriteRaw(`,"value":`)
		s.point(sample.T, sample.F)
	}
	s.WriteRaw("}")
}

// point writes [seconds,"value"].
func (s *stream) point(t int64, f float64) {
	s.WriteArrayStart()
	jsonutil.MarshalTimestamp(t, s.Stream)
	s.WriteMore()
	jsonutil.MarshalFloat(f, s.Stream)
	s.WriteArrayEnd()
}

func (s *stream) histogram(p promql.HPoint) {
	s.WriteArrayStart()
	jsonutil.MarshalTimestamp(p.T, s.Stream)
	s.WriteMore()
	jsonutil.MarshalHistogram(p.H, s.Stream)
	s.WriteArrayEnd()
}

// exemplars writes [{"seriesLabels":{…},"exemplars":[…]},…].
func (s *stream) exemplars(all []storeapi.ExemplarSeries) error {
	return s.list(len(all), func(i int) error {
		s.WriteRaw(`{"seriesLabels":`)
		s.labels(all[i].SeriesLabels)
		s.WriteRaw(`,"exemplars":`)
		err := s.list(len(all[i].Exemplars), func(j int) error {
			s.exemplar(&all[i].Exemplars[j])
			return nil
		})
		s.WriteRaw("}")
		return err
	})
}

func (s *stream) exemplar(e *exemplar.Exemplar) {
	s.WriteRaw(`{"labels":`)
	s.labels(e.Labels)
	s.WriteRaw(`,"value":`)
	jsonutil.MarshalFloat(e.Value, s.Stream)
	s.WriteRaw(`,"timestamp":`)
	jsonutil.MarshalTimestamp(e.Ts, s.Stream)
	s.WriteRaw("}")
}

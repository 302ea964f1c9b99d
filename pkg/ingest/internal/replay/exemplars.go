package replay

import (
	"errors"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/record"
)

// exemplars are those that the TSDB would keep: it is its own store, since which are taken
// depends on those before. Of a snapshot the TSDB takes all or nothing, so those that it would
// refuse must not get into one.
type exemplars struct {
	most   int
	window int64                // ms, in which they may come late
	kept   tsdb.ExemplarStorage // nil: there were none yet
}

func (x *exemplars) add(l labels.Labels, e exemplar.Exemplar) error {
	if x.kept == nil {
		var err error
		if x.kept, err = tsdb.NewCircularExemplarStorage(int64(x.most), tsdb.NewExemplarMetrics(nil), x.window); err != nil {
			return err
		}
	}
	_ = x.kept.AddExemplar(l, e) // the log has those, too, that were refused
	return nil
}

func (s *sequencer) keepExemplars(rec []byte) error {
	if s.cfg.MaxExemplars == 0 {
		return nil
	}
	list, err := s.dec.Exemplars(rec, nil)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.T < s.mint {
			continue
		}
		if _, old := s.series.aliases[e.Ref]; old {
			return unsure("an exemplar of series %d under an older name", e.Ref)
		}
		of := s.series.at(e.Ref)
		if of == nil {
			continue
		}
		lset := s.dec.DecodeLabels(&encoding.Decbuf{B: of.labels})
		if err := s.exemplars.add(lset, exemplar.Exemplar{Labels: e.Labels, Value: e.V, Ts: e.T}); err != nil {
			return err
		}
	}
	return nil
}

// each calls do with records of a snapshot that hold them, oldest first.
func (x *exemplars) each(t *table, do func(rec []byte)) error {
	if x.kept == nil {
		return nil
	}
	var list []record.RefExemplar
	var name encoding.Encbuf
	err := x.kept.IterateExemplars(func(l labels.Labels, e exemplar.Exemplar) error {
		name.Reset()
		record.EncodeLabels(&name, l)
		ref, ok := t.named(name.Get())
		if !ok {
			return errors.New("an exemplar of no series")
		}
		list = append(list, record.RefExemplar{Ref: ref, T: e.Ts, V: e.Value, Labels: e.Labels})
		if len(list) == exemplarsARecord {
			do(encodeExemplars(list))
			list = list[:0]
		}
		return nil
	})
	if len(list) > 0 {
		do(encodeExemplars(list))
	}
	return err
}

// encodeExemplars returns the record of a snapshot that holds them.
func encodeExemplars(list []record.RefExemplar) []byte {
	buf := encoding.Encbuf{}
	buf.PutByte(snapshotExemplars)
	var enc record.Encoder
	enc.EncodeExemplarsIntoBuffer(list, &buf)
	return buf.Get()
}

package replay

import (
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/record"
)

// exemplarRing keeps the newest exemplars of a log: for more the TSDB has no place.
type exemplarRing struct {
	most int // a multiple of what the TSDB keeps: it does not take those that come late for their series
	kept []record.RefExemplar
	next int // of kept, to be overwritten, once it is full
}

func (r *exemplarRing) add(e record.RefExemplar) {
	if len(r.kept) < r.most {
		r.kept = append(r.kept, e)
		return
	}
	r.kept[r.next] = e
	r.next = (r.next + 1) % r.most
}

// inOrder returns them, oldest first.
func (r *exemplarRing) inOrder() []record.RefExemplar {
	return append(r.kept[r.next:len(r.kept):len(r.kept)], r.kept[:r.next]...)
}

func (d *decoder) keepExemplars(rec []byte) error {
	if d.cfg.MaxExemplars == 0 {
		return nil
	}
	list, err := d.dec.Exemplars(rec, nil)
	if err != nil {
		return err
	}
	for _, e := range list {
		if s := d.series.at(e.Ref); e.T >= d.mint && s != nil && s.series != nil {
			d.exemplars.add(e)
		}
	}
	return nil
}

// encodeExemplars returns the record of a snapshot that holds them.
func encodeExemplars(list []record.RefExemplar) []byte {
	buf := encoding.Encbuf{}
	buf.PutByte(snapshotExemplars)
	var enc record.Encoder
	enc.EncodeExemplarsIntoBuffer(list, &buf)
	return buf.Get()
}

package wire

import "github.com/firnline/firnline/pkg/ingest/internal/batch"

// Forwarded is one tenant's part of what a Thanos router sends to an ingester.
type Forwarded struct {
	Tenant string // as sent: not checked
	Batch  *batch.Batch
}

// perTenant is what a tenant of a request counts as, against --ingest.max-items.
const perTenant = 32

// Thanos decodes the message of thanos.WriteableStore's RemoteWrite:
//
//	1 TimeSeries (of remote write 1), 2 tenant of them, 3 replica, from 1; 0: not replicated yet
//	4 TimeSeriesTenantTuple {1 TimeSeries, 2 tenant}
//
// Routers before 0.43 send 1 and 2, later ones 4. A tenant stands in the result once. The batches
// come from the pool; whoever gets them puts them back. It takes the body over.
func (d *Decoder) Thanos(body *Body, pool *batch.Pool) (parts []Forwarded, replica int64, err error) {
	f := forwarded{d: d, body: body, pool: pool, room: d.cfg.MaxItems, at: map[string]int{}}
	defer body.Free()
	s := scanner{b: body.b, end: len(body.b), protocol: "Thanos write request"}
	replica = f.request(&s)
	if s.err != nil {
		for _, p := range f.parts {
			pool.Put(p.Batch)
		}
		return nil, 0, s.err
	}
	return f.parts, replica, nil
}

// ReplicaOf is the replica number of a WriteRequest, as Thanos returns it, before
// the request is looked at. What is malformed has 0.
func ReplicaOf(request []byte) (replica int64) {
	s := scanner{b: request, end: len(request), protocol: "Thanos write request"}
	for s.more() {
		num, wire := s.tag()
		if num == 3 && s.is(wire, wireVarint) {
			replica = int64(s.varint())
		} else if s.err == nil {
			s.skip(wire)
		}
	}
	if s.err != nil {
		return 0
	}
	return replica
}

// forwarded collects the parts of a request. They share its body.
type forwarded struct {
	d     *Decoder
	body  *Body
	pool  *batch.Pool
	room  int
	parts []Forwarded
	each  []*request // of the parts
	at    map[string]int
}

func (f *forwarded) request(s *scanner) (replica int64) {
	var tenant []byte // may stand behind its series
	for s.more() {
		num, wire := s.tag()
		switch num {
		case 2:
			if s.is(wire, wireBytes) {
				tenant = s.bytes()
			}
		case 3:
			if s.is(wire, wireVarint) {
				replica = int64(s.varint())
			}
		case 4:
			if s.is(wire, wireBytes) {
				outer := s.enter()
				f.tuple(s)
				s.leave(outer)
			}
		default:
			s.skip(wire)
		}
	}
	s.i = 0
	f.series(s, tenant)
	return replica
}

// tuple reads a TimeSeriesTenantTuple.
func (f *forwarded) tuple(s *scanner) {
	begin := s.i
	var tenant []byte
	for s.more() {
		num, wire := s.tag()
		if num == 2 && s.is(wire, wireBytes) {
			tenant = s.bytes()
		} else if s.err == nil {
			s.skip(wire)
		}
	}
	s.i = begin
	f.series(s, tenant)
}

// series reads the fields of number 1 of a message into the tenant's part.
func (f *forwarded) series(s *scanner, tenant []byte) {
	for s.more() {
		num, wire := s.tag()
		switch {
		case num != 1:
			s.skip(wire)
		case s.is(wire, wireBytes):
			if r, into := f.part(s, tenant); s.err == nil {
				r.room = f.room
				r.series1(s, into)
				f.room = r.room
			}
		}
	}
}

// part is that of a tenant.
func (f *forwarded) part(s *scanner, tenant []byte) (*request, *batch.Batch) {
	i, ok := f.at[string(tenant)]
	if !ok {
		if f.room -= perTenant; f.room < 0 {
			s.tooLarge("too many tenants and series (%s)", flagItems)
			return nil, nil
		}
		f.body.users.Add(1)
		r, b := f.d.request(f.body), f.pool.Get()
		b.Free, b.Labels = r.free, r.labels1
		i = len(f.parts)
		f.at[string(tenant)] = i
		f.parts, f.each = append(f.parts, Forwarded{Tenant: string(tenant), Batch: b}), append(f.each, r)
	}
	return f.each[i], f.parts[i].Batch
}

package storeapi

import (
	"fmt"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// maxLabelBytes is what package labels can hold of a name or value.
const maxLabelBytes = 1<<24 - 1

// inFrame is a frame received: series, or a warning, or hints. It is decoded
// again and again. Chunk data points into the bytes of the frame, which belong
// to it alone and live as long as any chunk does; labels are copied.
type inFrame struct {
	series  []Series
	warning string
	hints   *anypb.Any

	chunks  []Chunk // of all series
	builder labels.ScratchBuilder
}

func (f *inFrame) buffers() mem.BufferSlice { panic("storeapi: inFrame is only received") }

// decode reads a SeriesResponse. Errors are ErrCorrupt.
func (f *inFrame) decode(data []byte) error {
	f.series, f.chunks, f.warning, f.hints = f.series[:0], f.chunks[:0], "", nil
	return eachField(data, func(field protowire.Number, v value) error {
		switch field {
		case fieldSeries:
			return f.decodeSeries(v.bytes)
		case fieldBatch:
			return eachField(v.bytes, func(field protowire.Number, v value) error {
				if field != fieldBatchSeries {
					return nil
				}
				return f.decodeSeries(v.bytes)
			})
		case fieldWarning:
			f.warning = string(v.bytes)
		case fieldHints:
			f.hints = &anypb.Any{}
			if err := proto.Unmarshal(v.bytes, f.hints); err != nil {
				return fmt.Errorf("%w: hints: %w", ErrCorrupt, err)
			}
		}
		return nil
	})
}

func (f *inFrame) decodeSeries(data []byte) error {
	f.builder.Reset()
	from, last, sorted := len(f.chunks), "", true
	err := eachField(data, func(field protowire.Number, v value) error {
		switch field {
		case fieldLabels:
			name, val, err := decodeLabel(v.bytes)
			if err != nil || val == "" {
				return err
			}
			sorted, last = sorted && last < name, name
			f.builder.Add(name, val)
		case fieldChunks:
			c, err := decodeChunk(v.bytes)
			if err != nil {
				return err
			}
			f.chunks = append(f.chunks, c)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !sorted {
		f.builder.Sort()
	}
	lset := f.builder.Labels()
	if name, dup := lset.HasDuplicateLabelNames(); !sorted && dup {
		return fmt.Errorf("%w: series %s has label %q twice", ErrCorrupt, lset, name)
	}
	f.series = append(f.series, Series{Labels: lset, Chunks: f.chunks[from:len(f.chunks):len(f.chunks)]})
	return nil
}

// decodeLabel returns name and value, which point into data until the builder
// has copied them. As strings of their own they would be two allocations a
// label, 9 instead of 1 for a series of four (BenchmarkFrame).
func decodeLabel(data []byte) (name, val string, err error) {
	err = eachField(data, func(field protowire.Number, v value) error {
		if len(v.bytes) > maxLabelBytes {
			return fmt.Errorf("%w: a label has %d bytes", ErrCorrupt, len(v.bytes))
		}
		switch field {
		case fieldName:
			name = unsafe.String(unsafe.SliceData(v.bytes), len(v.bytes))
		case fieldValue:
			val = unsafe.String(unsafe.SliceData(v.bytes), len(v.bytes))
		}
		return nil
	})
	return name, val, err
}

func decodeChunk(data []byte) (c Chunk, err error) {
	raw := false
	err = eachField(data, func(field protowire.Number, v value) (err error) {
		switch field {
		case fieldMinTime:
			c.MinTime = int64(v.number)
		case fieldMaxTime:
			c.MaxTime = int64(v.number)
		case fieldReplica:
			c.Replica = uint32(v.number)
		case fieldRaw:
			raw = true
			c.Raw, err = decodeData(v.bytes)
		case fieldCount, fieldSum, fieldMin, fieldMax, fieldCounter:
			if c.Aggr == nil {
				c.Aggr = &Aggregates{}
			}
			*c.Aggr.field(field), err = decodeData(v.bytes)
		}
		return err
	})
	if err == nil && c.MinTime > c.MaxTime {
		err = fmt.Errorf("%w: chunk from %d to %d", ErrCorrupt, c.MinTime, c.MaxTime)
	}
	switch {
	case raw:
		c.Aggr = nil
	case c.Aggr == nil:
		c.Aggr = &Aggregates{}
	}
	return c, err
}

// field is the sub-chunk that has the field number in AggrChunk.
func (a *Aggregates) field(n protowire.Number) *Data {
	switch n {
	case fieldCount:
		return &a.Count
	case fieldSum:
		return &a.Sum
	case fieldMin:
		return &a.Min
	case fieldMax:
		return &a.Max
	}
	return &a.Counter
}

func decodeData(data []byte) (d Data, err error) {
	typ := uint64(0)
	err = eachField(data, func(field protowire.Number, v value) error {
		switch field {
		case fieldType:
			typ = v.number
		case fieldData:
			d.Bytes = v.bytes
		}
		return nil
	})
	if err != nil {
		return d, err
	}
	d.Encoding, err = encodingOf(typ)
	return d, err
}

// value is a field's value: a number, or bytes.
type value struct {
	number uint64
	bytes  []byte
}

// eachField calls f for each field of a message. Groups, which proto3 has not,
// are passed over like every field that f doesn't know.
func eachField(data []byte, f func(field protowire.Number, v value) error) error {
	for len(data) > 0 {
		field, typ, n := protowire.ConsumeTag(data)
		if n < 0 {
			return fmt.Errorf("%w: frame: %w", ErrCorrupt, protowire.ParseError(n))
		}
		data = data[n:]
		var v value
		switch typ {
		case protowire.VarintType:
			v.number, n = protowire.ConsumeVarint(data)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(data)
			v.bytes = v.bytes[:len(v.bytes):len(v.bytes)]
		default:
			n = protowire.ConsumeFieldValue(field, typ, data)
		}
		if n < 0 {
			return fmt.Errorf("%w: frame: field %d: %w", ErrCorrupt, field, protowire.ParseError(n))
		}
		if err := f(field, v); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

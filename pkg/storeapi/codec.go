package storeapi

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// codec is the wire format "proto" of gRPC by generated code instead of
// reflection. It is given to servers and calls, never registered: what has
// neither a frame's methods nor generated ones (health, reflection) goes through
// the standard codec, and peers see the same bytes.
type codec struct {
	standard encoding.CodecV2
}

// newCodec returns our codec in front of the standard one.
func newCodec() codec { return codec{standard: encoding.GetCodecV2(proto.Name)} }

// framed is a message that brings its own bytes and takes those received.
type framed interface {
	// buffers hands over what is to be sent.
	buffers() mem.BufferSlice
	// decode takes ownership of data.
	decode(data []byte) error
}

// generated are the methods of a message of package storepb.
type generated interface {
	SizeVT() int
	MarshalToSizedBufferVT(b []byte) (int, error)
	UnmarshalVT(b []byte) error
}

func (codec) Name() string { return proto.Name }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case framed:
		return m.buffers(), nil
	case generated:
		size := m.SizeVT()
		if mem.IsBelowBufferPoolingThreshold(size) {
			b := make([]byte, size)
			_, err := m.MarshalToSizedBufferVT(b)
			return mem.BufferSlice{mem.SliceBuffer(b)}, err
		}
		pool := mem.DefaultBufferPool()
		b := pool.Get(size)
		if _, err := m.MarshalToSizedBufferVT((*b)[:size]); err != nil {
			pool.Put(b)
			return nil, err
		}
		return mem.BufferSlice{mem.NewBuffer(b, pool)}, nil
	}
	return c.standard.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case framed:
		return m.decode(data.Materialize())
	case generated:
		buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
		defer buf.Free()
		if err := m.UnmarshalVT(buf.ReadOnlyData()); err != nil {
			return fmt.Errorf("decode %T: %w", v, err)
		}
		return nil
	}
	return c.standard.Unmarshal(data, v)
}

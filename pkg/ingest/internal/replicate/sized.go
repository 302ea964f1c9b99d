package replicate

import (
	"context"
	"encoding/binary"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// prefixBytes stand before each message of gRPC: whether it is compressed, and its length.
const prefixBytes = 5

// transport is what gRPC's streams of a server can do below its decoding of messages.
type transport interface {
	ReadMessageHeader(prefix []byte) error
	Read(n int) (mem.BufferSlice, error)
}

// receiveSized reads the message of a call whose sender said how long it is. One that is
// longer is refused by its prefix, before the rest of it is read: memory has been set
// aside for no more. Where gRPC hides its transport that shows only when all is read.
func receiveSized(ctx context.Context, decode func(any) error, said int64, into *message) error {
	t, ok := grpc.ServerTransportStreamFromContext(ctx).(transport)
	if !ok {
		if err := decode(into); err != nil {
			return err
		}
		return asSaid(int64(len(into.b)), said)
	}
	var prefix [prefixBytes]byte
	if err := t.ReadMessageHeader(prefix[:]); err != nil {
		return cutShort(err)
	}
	if prefix[0] != 0 {
		return status.Error(codes.Internal, "a message between nodes is compressed by gRPC; nodes compress what they send themselves (--receive.grpc-compression)")
	}
	n := int64(binary.BigEndian.Uint32(prefix[1:]))
	if err := asSaid(n, said); err != nil {
		return err
	}
	data, err := t.Read(int(n))
	if err != nil {
		return cutShort(err)
	}
	defer data.Free()
	into.b = into.b[:0]
	for _, part := range data {
		into.b = append(into.b, part.ReadOnlyData()...)
	}
	return nil
}

// asSaid refuses a message of more bytes than its sender said.
func asSaid(bytes, said int64) error {
	if bytes <= said {
		return nil
	}
	return refuse.Errorf(refuse.RequestTooLarge, "", "a message between nodes has %d bytes, and %d were said (%s)", bytes, said, sizeKey)
}

// cutShort is the answer to a message that ends too early.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return status.Error(codes.Internal, "the message between nodes is cut short")
	}
	return err
}

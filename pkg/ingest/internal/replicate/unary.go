package replicate

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// message is a message of gRPC whose bytes are its user's business. It has the
// methods of generated messages that storeapi's codec calls.
type message struct{ b []byte }

func (m *message) SizeVT() int { return len(m.b) }

// MarshalToSizedBufferVT copies the bytes to the end of b, which is as long as SizeVT said.
func (m *message) MarshalToSizedBufferVT(b []byte) (int, error) { return copy(b, m.b), nil }

// UnmarshalVT copies the bytes out of gRPC's buffer.
func (m *message) UnmarshalVT(b []byte) error {
	m.b = append(m.b[:0], b...)
	return nil
}

// Unary is a method of gRPC with one message there and one back.
type Unary struct {
	Service, Method string
	Patience        time.Duration // for a message to arrive once it may be read; 0: readPatience
}

// readPatience is for the largest messages at some megabytes a second. Meanwhile others wait.
const readPatience = 30 * time.Second

// Reading waits until a message may be read whose size nobody knows before. done is
// to be called when it has been read.
type Reading func(ctx context.Context) (done func(), err error)

// register offers a method alone in its service. answer is called behind the server's
// interceptors and before the request is read by decode: what is refused takes no memory.
func (u Unary) register(r grpc.ServiceRegistrar, answer func(ctx context.Context, decode func(any) error) (any, error)) {
	handler := func(_ any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // gRPC's order of arguments
		call := func(ctx context.Context, _ any) (any, error) { return answer(ctx, decode) }
		if intercept == nil {
			return call(ctx, nil)
		}
		return intercept(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/" + u.Service + "/" + u.Method}, call)
	}
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: u.Service,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: u.Method, Handler: handler}},
		Metadata:    "firnline/ingest",
	}, nil)
}

// RegisterUnary offers a method whose messages are bytes, such as those that
// somebody else decodes. handle may not keep the request.
func RegisterUnary(r grpc.ServiceRegistrar, u Unary, read Reading, handle func(ctx context.Context, request []byte) ([]byte, error)) {
	u.register(r, func(ctx context.Context, decode func(any) error) (any, error) {
		done, err := read(ctx)
		if err != nil {
			return nil, err
		}
		in, err := u.receive(decode, done)
		if err != nil {
			return nil, err
		}
		out, err := handle(ctx, in.b)
		if err != nil {
			return nil, err
		}
		return &message{out}, nil
	})
}

// receive reads a message, and then calls done. The reading of one that does not come ends with the call.
func (u Unary) receive(decode func(any) error, done func()) (*message, error) {
	in, read := &message{}, make(chan error, 1)
	go func() {
		defer done()
		read <- decode(in)
	}()
	patience := time.NewTimer(cmp.Or(u.Patience, readPatience))
	defer patience.Stop()
	select {
	case err := <-read:
		return in, err
	case <-patience.C:
		return nil, status.Error(codes.Unavailable, "the message did not arrive in time, and others wait to be read; send it again later")
	}
}

package replicate

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// The services, as gRPC names them.
const (
	ownerService     = "firnline.ingest.Owner"
	appendMethod     = "/" + ownerService + "/Append"
	writeableService = "thanos.WriteableStore"
	remoteWrite      = "/" + writeableService + "/RemoteWrite"
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

// Place is memory set aside for a frame.
type Place interface {
	Grow(bytes int64) error // before more is taken
	Leave()
}

// Admission sets memory aside for a frame of so many bytes. An error is a *refuse.Error.
type Admission func(bytes int64) (Place, error)

// Server answers other nodes that write to this one.
type Server struct {
	owner    Owner
	admit    Admission
	maxFrame int64
	compress bool

	batches batch.Pool
	readers sync.Pool // of *received
	buffers buffers
}

// received is what a frame is read into.
type received struct {
	in      message
	scratch []byte
	reader  frameReader
	only    []uint32
}

// NewServer returns a Server in front of this process' heads.
func NewServer(cfg Config, owner Owner, admit Admission) *Server {
	return &Server{owner: owner, admit: admit, maxFrame: cfg.MaxFrameBytes, compress: cfg.Compression == "snappy"}
}

// Register offers the service to other nodes. Whoever can call it can write for
// every tenant: the connection is what is authenticated.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: ownerService,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Append", Handler: s.handle}},
		Metadata:    "firnline/ingest",
	}, s)
}

// handle is gRPC's handler of Append.
func (s *Server) handle(_ any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // gRPC's order of arguments
	x, ok := s.readers.Get().(*received)
	if !ok {
		x = &received{}
	}
	defer s.putBack(x)
	if err := decode(&x.in); err != nil {
		return nil, err
	}
	call := func(ctx context.Context, _ any) (any, error) { return s.append(ctx, x) }
	if intercept == nil {
		return call(ctx, &x.in)
	}
	return intercept(ctx, &x.in, &grpc.UnaryServerInfo{Server: s, FullMethod: appendMethod}, call)
}

func (s *Server) putBack(x *received) {
	if cap(x.in.b)+cap(x.scratch) <= keptBuffer {
		s.readers.Put(x)
	}
}

// append reads a frame, appends it and makes the answer.
func (s *Server) append(ctx context.Context, x *received) (*message, error) {
	res, err := s.carryOut(ctx, x)
	why, refused := errors.AsType[*refuse.Error](err)
	if err != nil && !refused {
		return nil, err
	}
	out := s.buffers.get()
	defer s.buffers.put(out)
	*out = appendAnswer(*out, res, why)
	return &message{seal(nil, *out, s.compress)}, nil
}

// carryOut reads a frame and appends it. An error that is no refusal is a status of gRPC.
func (s *Server) carryOut(ctx context.Context, x *received) (batch.Result, error) {
	place, err := s.admit(int64(len(x.in.b)))
	if err != nil {
		return batch.Result{}, err
	}
	defer place.Leave()
	payload, err := unseal(x.in.b, s.maxFrame, &x.scratch, place.Grow)
	if _, ok := errors.AsType[*refuse.Error](err); ok {
		return batch.Result{}, err
	}
	if err != nil {
		return batch.Result{}, status.Error(codes.DataLoss, err.Error())
	}
	b := s.batches.Get()
	defer s.batches.Put(b)
	w := batch.Write{Batch: b, Only: x.only}
	if err := x.reader.read(payload, &w); err != nil {
		return batch.Result{}, status.Error(codes.DataLoss, err.Error())
	}
	x.only = w.Only
	res, err := s.owner.Append(ctx, &w)
	if err == nil {
		return res, nil
	}
	if _, ok := errors.AsType[*refuse.Error](err); ok {
		return batch.Result{}, err
	}
	if ctx.Err() != nil {
		return batch.Result{}, status.FromContextError(ctx.Err()).Err()
	}
	return batch.Result{}, refuse.Errorf(refuse.Unavailable, w.Tenant, "%v", fmt.Errorf("append: %w", err))
}

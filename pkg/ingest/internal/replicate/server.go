package replicate

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
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
	Unary{Service: ownerService, Method: "Append"}.register(r, func(ctx context.Context, decode func(any) error) (any, error) {
		x, ok := s.readers.Get().(*received)
		if !ok {
			x = &received{}
		}
		defer s.putBack(x)
		return s.append(ctx, x, decode)
	})
}

// sizeKey is the metadata by which a sender says how long its frame is.
const sizeKey = "firnline-frame-bytes"

// withSize says how long the frame of a call is, so that memory can be set aside before it is read.
func withSize(ctx context.Context, frame []byte) context.Context {
	return metadata.AppendToOutgoingContext(ctx, sizeKey, strconv.Itoa(len(frame)))
}

// sizeOf is how long the frame of a call is said to be; of a sender that doesn't, how long it may be.
func (s *Server) sizeOf(ctx context.Context) int64 {
	if said := metadata.ValueFromIncomingContext(ctx, sizeKey); len(said) == 1 {
		if n, err := strconv.ParseInt(said[0], 10, 64); err == nil && n >= 0 {
			return n
		}
	}
	return s.largest()
}

// largest is how long a frame may be: what can't be compressed is a little longer for it.
func (s *Server) largest() int64 { return s.maxFrame + s.maxFrame/4 }

func (s *Server) putBack(x *received) {
	if cap(x.in.b)+cap(x.scratch) <= keptBuffer {
		s.readers.Put(x)
	}
}

// append reads a frame, appends it and makes the answer.
func (s *Server) append(ctx context.Context, x *received, decode func(any) error) (*message, error) {
	res, err := s.carryOut(ctx, x, decode)
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
func (s *Server) carryOut(ctx context.Context, x *received, decode func(any) error) (batch.Result, error) {
	size := s.sizeOf(ctx)
	if size > s.largest() {
		return batch.Result{}, status.Errorf(codes.ResourceExhausted, "a message between nodes of %d bytes, at most %d are read (--receive.forward-max-frame-bytes)", size, s.largest())
	}
	place, err := s.admit(size)
	if err != nil {
		return batch.Result{}, err
	}
	defer place.Leave()
	if err := receiveSized(ctx, decode, size, &x.in); err != nil {
		return batch.Result{}, err
	}
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

package storeapi

import (
	"io"
	"math"
	"sync"
	"time"

	"github.com/klauspost/compress/snappy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/keepalive"
)

// What both sides agree on about connections; Thanos' peers use the same.
const (
	keepaliveEvery   = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	compressorName   = "snappy"
)

// ServerOptions returns what a gRPC server needs before Register is called with it.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(math.MaxInt32),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveEvery}),
	}
}

// DialOptions returns what a connection to an endpoint needs; credentials are
// the caller's to add. With compress set requests ask for answers in snappy.
func DialOptions(compress bool) []grpc.DialOption {
	call := []grpc.CallOption{
		grpc.ForceCodecV2(newCodec()),
		grpc.MaxCallRecvMsgSize(math.MaxInt32),
		grpc.MaxCallSendMsgSize(math.MaxInt32),
	}
	if compress {
		call = append(call, grpc.UseCompressor(compressorName))
	}
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(call...),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveEvery, Timeout: keepaliveTimeout}),
	}
}

// gRPC looks compressors up in a table of its own, which may be written to
// during initialisation only; there is no other way to offer one by name to
// those clients that ask for it. Gzip is not registered by us.
func init() { encoding.RegisterCompressor(&compressor{}) } //nolint:gochecknoinits // see above

// compressor is the framed format of snappy.
type compressor struct{ writers, readers sync.Pool }

func (*compressor) Name() string { return compressorName }

func (c *compressor) Compress(w io.Writer) (io.WriteCloser, error) {
	s, ok := c.writers.Get().(*snappy.Writer)
	if !ok {
		s = snappy.NewBufferedWriter(w)
	}
	s.Reset(w)
	return &snappyWriter{Writer: s, pool: &c.writers}, nil
}

func (c *compressor) Decompress(r io.Reader) (io.Reader, error) {
	s, ok := c.readers.Get().(*snappy.Reader)
	if !ok {
		s = snappy.NewReader(r)
	}
	s.Reset(r)
	return &snappyReader{r: s, pool: &c.readers}, nil
}

type snappyWriter struct {
	*snappy.Writer
	pool *sync.Pool
}

func (w *snappyWriter) Close() error {
	err := w.Writer.Close()
	w.pool.Put(w.Writer)
	return err
}

// snappyReader gives its reader back once, at the end of the message.
type snappyReader struct {
	r    *snappy.Reader
	pool *sync.Pool
}

func (r *snappyReader) Read(p []byte) (int, error) {
	if r.r == nil {
		return 0, io.EOF
	}
	n, err := r.r.Read(p)
	if err == io.EOF { //nolint:errorlint // readers return it bare
		r.r.Reset(nil)
		r.pool.Put(r.r)
		r.r = nil
	}
	return n, err
}

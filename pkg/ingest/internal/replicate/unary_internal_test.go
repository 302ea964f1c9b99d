package replicate

import (
	"bytes"
	"context"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/storeapi"
)

// begin calls a method and does not send its message.
func begin(ctx context.Context, t *testing.T, addr, method string) grpc.ClientStream {
	t.Helper()
	conn, err := grpc.NewClient(addr, append(storeapi.DialOptions(false), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	require.NoError(t, err)
	return stream
}

// RELIABILITY P7: memory for a frame is set aside before it is read, by what its sender says. What is
// longer than that is refused without being read.
func TestFrameIsAdmittedBeforeItIsRead(t *testing.T) {
	cfg := testConfig()
	asked := make(chan int64, 10)
	full := refuse.Errorf(refuse.Overloaded, "", "no room")
	addr, _ := serveAdmitting(t, "127.0.0.1:0", &heads{}, cfg, func(bytes int64) (Place, error) {
		asked <- bytes
		if bytes == 3 {
			return noPlace{}, nil
		}
		return nil, full
	})
	say := func(bytes string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), sizeKey, bytes)
	}
	for said, want := range map[string]int64{"123456": 123456, "-1": cfg.MaxFrameBytes + cfg.MaxFrameBytes/4, "": cfg.MaxFrameBytes + cfg.MaxFrameBytes/4} {
		stream := begin(say(said), t, addr, appendMethod)
		require.Equal(t, want, <-asked)
		require.ErrorContains(t, answerOf(t, stream), "no room")
	}
	stream := begin(say("3"), t, addr, appendMethod)
	require.NoError(t, stream.SendMsg(&message{[]byte("four")}))
	require.NoError(t, stream.CloseSend())
	require.ErrorContains(t, answerOf(t, stream), "has 4 bytes, and 3 were said")

	stream = begin(say(strconv.FormatInt(2*cfg.MaxFrameBytes, 10)), t, addr, appendMethod)
	require.Equal(t, codes.ResourceExhausted, status.Code(stream.RecvMsg(&message{})), "more than any may have")
	require.ErrorContains(t, liar(t, addr), "has 1048576 bytes, and 3 were said")
}

// liar says that its frame has 3 bytes, announces one of a MiB and sends nothing of that. It returns how it was answered.
func liar(t *testing.T, addr string) error {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	var head bytes.Buffer
	fields := hpack.NewEncoder(&head)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: appendMethod}, {Name: ":authority", Value: addr},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"}, {Name: sizeKey, Value: "3"},
	} {
		require.NoError(t, fields.WriteField(f))
	}
	_, err = conn.Write([]byte(http2.ClientPreface))
	require.NoError(t, err)
	f := http2.NewFramer(conn, conn)
	require.NoError(t, f.WriteSettings())
	require.NoError(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true}))
	require.NoError(t, f.WriteData(1, false, []byte{0, 0, 1 << 4, 0, 0})) // gRPC's prefix alone
	for {
		got, err := f.ReadFrame()
		require.NoError(t, err)
		if data, ok := got.(*http2.DataFrame); ok {
			var scratch []byte
			payload, err := unseal(data.Data()[prefixBytes:], 1<<20, &scratch, func(int64) error { return nil })
			require.NoError(t, err)
			_, err = readAnswer(payload, 0, "t")
			return err
		}
	}
}

// answerOf is the refusal in an owner's answer.
func answerOf(t *testing.T, stream grpc.ClientStream) error {
	t.Helper()
	var reply message
	require.NoError(t, stream.RecvMsg(&reply))
	var scratch []byte
	payload, err := unseal(reply.b, 1<<20, &scratch, func(int64) error { return nil })
	require.NoError(t, err)
	_, err = readAnswer(payload, 0, "t")
	return err
}

// RELIABILITY P7: a message of unknown size is read when there is room, and one that does not come gives it back.
func TestReadsWaitForRoom(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := grpc.NewServer(storeapi.ServerOptions()...)
	room, given := make(chan struct{}, 1), make(chan struct{}, 10)
	for service, patience := range map[string]time.Duration{"impatient": time.Millisecond, "patient": time.Minute} {
		RegisterUnary(s, Unary{Service: service, Method: "M", Patience: patience}, func(ctx context.Context) (func(), error) {
			select {
			case room <- struct{}{}:
				return func() { <-room; given <- struct{}{} }, nil
			case <-ctx.Done():
				return nil, status.FromContextError(ctx.Err()).Err()
			}
		}, func(_ context.Context, request []byte) ([]byte, error) { return request, nil })
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	defer func() { s.Stop(); <-ended }()

	silent := begin(t.Context(), t, l.Addr().String(), "/impatient/M")
	require.Equal(t, codes.Unavailable, status.Code(silent.RecvMsg(&message{})))
	<-given
	for range 3 {
		stream := begin(t.Context(), t, l.Addr().String(), "/patient/M")
		require.NoError(t, stream.SendMsg(&message{[]byte("hello")}))
		require.NoError(t, stream.CloseSend())
		var reply message
		require.NoError(t, stream.RecvMsg(&reply))
		require.Equal(t, "hello", string(reply.b))
		<-given
	}
	require.Empty(t, room)
}

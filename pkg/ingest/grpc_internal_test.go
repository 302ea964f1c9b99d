package ingest

import (
	"context"
	"flag"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// idle is an Ingester that does not run.
func idle(t *testing.T, args ...string) *Ingester {
	t.Helper()
	var cfg Config
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	cfg.RegisterFlags(fs)
	require.NoError(t, fs.Parse(append([]string{"--tsdb.path=" + t.TempDir(), `--label=ingest="a"`, "--ring.bind-address=127.0.0.1:0", "--ring.instance-id=a"}, args...)))
	require.NoError(t, cfg.Validate())
	in, err := New(cfg, Parts{Address: "127.0.0.1:1", Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	require.NoError(t, err)
	return in
}

// RELIABILITY P8: what another node has for this one's heads has a place although all those of
// requests are taken, for example by some that wait for that node; what is to be distributed has none.
func TestPlacesOfThanosCalls(t *testing.T) {
	in := idle(t, "--ingest.max-concurrent-requests=1", "--ingest.max-concurrent-frames=1")
	request, err := in.gate.Enter(0)
	require.NoError(t, err)
	const replica = 3 << 3
	require.Equal(t, refuse.Overloaded, refuse.ReasonOf(in.writeThanos(t.Context(), nil)))
	require.NoError(t, in.writeThanos(t.Context(), []byte{replica, 1}))
	frame, err := in.gate.EnterFrame(0)
	require.NoError(t, err)
	require.Equal(t, refuse.Overloaded, refuse.ReasonOf(in.writeThanos(t.Context(), []byte{replica, 1})))
	request.Leave()
	require.NoError(t, in.writeThanos(t.Context(), nil))
	frame.Leave()
	require.NoError(t, in.writeThanos(t.Context(), []byte{replica, 1}), "all have left")
}

// A limit on bytes in flight has room for one request.
func TestBytesInFlightHoldOneRequest(t *testing.T) {
	var cfg Config
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	cfg.RegisterFlags(fs)
	require.NoError(t, cfg.Validate())
	require.NoError(t, fs.Parse([]string{"--ingest.max-bytes-in-flight=64MiB", "--ingest.max-frame-bytes-in-flight=32MiB"}))
	require.ErrorContains(t, cfg.Validate(), "--ingest.max-bytes-in-flight=64MiB")
	require.ErrorContains(t, cfg.Validate(), "--ingest.max-frame-bytes-in-flight=32MiB")
	require.NoError(t, fs.Parse([]string{"--ingest.max-body-bytes=1000000", "--ingest.max-decoded-bytes=1000000", "--receive.forward-max-frame-bytes=1000000"}))
	require.NoError(t, cfg.Validate())
}

// RELIABILITY P7: messages of senders that don't say how large they are, are read while the largest
// would fit into --ingest.max-read-bytes-in-flight; those of nodes, which do, go on.
func TestReadsOverGRPCAreBounded(t *testing.T) {
	in := idle(t, "--ingest.max-read-bytes-in-flight=1MiB")
	in.maxMessage = 1 << 20
	_, addr := serveAll(t, in)
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})))
	require.NoError(t, err)
	defer conn.Close()
	call := func(method string) codes.Code {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var answer []byte
		return status.Code(conn.Invoke(ctx, method, new([]byte), &answer))
	}
	slow, end := context.WithCancel(t.Context())
	defer end()
	for _, method := range []string{otlpExport, thanosWrite} {
		require.Eventually(t, func() bool {
			// Its message does not come. One that waits for its message for too long leaves its place to the next.
			_, err := conn.NewStream(slow, &grpc.StreamDesc{ClientStreams: true}, otlpExport)
			return err == nil && call(method) == codes.DeadlineExceeded
		}, 2*time.Minute, time.Millisecond, method)
	}
	require.Eventually(t, func() bool { return call(ownerAppend) == codes.DataLoss }, 2*time.Minute, time.Millisecond, "an empty frame is read")
	end()
	for _, method := range []string{otlpExport, thanosWrite} {
		require.Eventually(t, func() bool { return call(method) != codes.DeadlineExceeded }, 2*time.Minute, time.Millisecond, method)
	}
}

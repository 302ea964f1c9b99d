package replicate

import (
	"context"
	"errors"
	"math/rand"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/storeapi"
)

// receive is a server that knows WriteableStore only, as Thanos' receive does.
type receive struct {
	err  error
	last []byte
}

func (r *receive) start(t *testing.T) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := grpc.NewServer(storeapi.ServerOptions()...)
	RegisterWriteable(s, func(context.Context) (func(), error) { return func() {}, nil }, func(_ context.Context, request []byte) error {
		r.last = append([]byte{}, request...)
		return r.err
	})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), append(storeapi.DialOptions(false), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		s.Stop()
		require.NoError(t, <-done)
	})
	return conn
}

// COMPAT A3.2: a peer that does not know our service is spoken to as Thanos'
// routers do, with the fields that all its versions know.
func TestWriteToThanos(t *testing.T) {
	r := &receive{}
	c := newClient(r.start(t), "peer", testConfig(), newMetrics(prometheus.NewRegistry()), time.Now)
	w := randomWrite(rand.New(rand.NewSource(7)))
	require.NotEmpty(t, w.Only)
	_, err := c.Append(t.Context(), w)
	require.NoError(t, err)
	require.NotZero(t, c.thanos.Load(), "it is remembered")
	series, fields := readWriteRequest(t, r.last)
	require.Equal(t, map[protowire.Number]string{2: "team-a", 3: "\x01"}, fields)
	require.Len(t, series, len(w.Only))
	for i, n := range w.Only {
		s := w.Batch.Series[n]
		ls, err := w.Batch.Labels(int(n))
		require.NoError(t, err)
		require.Equal(t, prompb.FromLabels(ls, nil), series[i].Labels)
		require.Len(t, series[i].Samples, s.Floats.Len())
		require.Len(t, series[i].Histograms, s.Histograms.Len())
		require.Len(t, series[i].Exemplars, s.Exemplars.Len())
		for j, x := range series[i].Samples {
			require.Equal(t, w.Batch.Floats[int(s.Floats.From)+j].V, x.Value)
		}
	}
}

func readWriteRequest(t *testing.T, b []byte) (series []prompb.TimeSeries, others map[protowire.Number]string) {
	t.Helper()
	others = map[protowire.Number]string{}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		require.Positive(t, n)
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		require.Positive(t, size)
		value := b[n : n+size]
		b = b[n+size:]
		if kind == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(value)
		}
		if number != 1 {
			others[number] = string(value)
			continue
		}
		var ts prompb.TimeSeries
		require.NoError(t, ts.Unmarshal(value))
		series = append(series, ts)
	}
	return series, others
}

// COMPAT A3.2: errors on the wire, as our server says them and as our client understands them.
func TestThanosErrors(t *testing.T) {
	r := &receive{}
	conn := r.start(t)
	c := newClient(conn, "peer", testConfig(), newMetrics(prometheus.NewRegistry()), time.Now)
	for _, x := range []struct {
		err    error
		code   codes.Code
		reason refuse.Reason // empty: not a refusal, the node failed
	}{
		{nil, codes.OK, ""},
		{refuse.Errorf(refuse.Unavailable, "x", "no quorum"), codes.Unavailable, ""},
		{refuse.Errorf(refuse.SeriesLimit, "x", "full"), codes.Unavailable, ""},
		{refuse.Errorf(refuse.SampleDuplicate, "x", "again"), codes.AlreadyExists, refuse.SampleOutOfOrder},
		{refuse.Errorf(refuse.SampleTooOld, "x", "old"), codes.AlreadyExists, refuse.SampleOutOfOrder},
		{refuse.Errorf(refuse.BadTenant, "x", "../"), codes.InvalidArgument, refuse.BadRequest},
		{errors.New("a bug"), codes.Internal, ""},
	} {
		r.err = x.err
		err := conn.Invoke(t.Context(), remoteWrite, &message{}, &message{})
		require.Equal(t, x.code, status.Code(err))
		_, err = c.Append(t.Context(), newRouter("r").write(1, 1, "a"))
		if x.err == nil {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, "node peer")
		require.NotContains(t, err.Error(), "rpc error")
		refusal, ok := errors.AsType[*refuse.Error](err)
		require.Equal(t, x.reason != "", ok, "%v", err)
		if ok {
			require.Equal(t, x.reason, refusal.Reason)
		}
	}
}

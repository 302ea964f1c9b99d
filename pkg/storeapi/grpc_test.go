package storeapi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storepb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/infopb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/labelpb"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

func TestMain(m *testing.M) { proctest.Main(m) }

// listen serves what register puts on a server, and dials it.
func listen(t testing.TB, compress bool, register func(*grpc.Server)) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := grpc.NewServer(storeapi.ServerOptions()...)
	register(srv)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), append(storeapi.DialOptions(compress), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		srv.Stop()
		require.NoError(t, <-done)
	})
	return conn
}

// remote puts services behind a connection, and returns the client.
func remote(t testing.TB, svc storeapi.Services, opts ...storeapi.ClientOption) *storeapi.Client {
	t.Helper()
	conn := listen(t, false, func(s *grpc.Server) { storeapi.Register(s, svc, slog.New(slog.NewTextHandler(io.Discard, nil))) })
	return storeapi.NewClient(conn, "peer-1", opts...)
}

func everything() storeapi.Selection {
	return storeapi.Selection{Maxt: 1 << 60, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".*")}}
}

func collect(set storeapi.SeriesSet) (out []storeapi.Series) {
	for set.Next() {
		at := set.At()
		out = append(out, storeapi.Series{Labels: at.Labels, Chunks: append([]storeapi.Chunk(nil), at.Chunks...)})
	}
	return out
}

func TestConformanceOverGRPC(t *testing.T) {
	for _, compress := range []bool{false, true} {
		t.Run(fmt.Sprintf("snappy=%v", compress), func(t *testing.T) {
			storetest.Run(t, func(t *testing.T, in storetest.Input) storeapi.Store {
				conn := listen(t, compress, func(s *grpc.Server) {
					storeapi.Register(s, storeapi.Services{Store: storetest.NewFakeOf(t, in)}, slog.New(slog.NewTextHandler(io.Discard, nil)))
				})
				c := storeapi.NewClient(conn, "peer-1")
				_, err := c.Info(t.Context())
				require.NoError(t, err)
				return c
			}, storetest.RequiresMatchers())
		})
	}
}

// incapable is a peer that leaves sharding and replica labels to its clients.
type incapable struct {
	*storetest.Fake
	t *testing.T
}

// Series checks that nothing was asked for that the peer doesn't know.
func (s incapable) Series(ctx context.Context, sel storeapi.Selection) (storeapi.SeriesSet, error) {
	if sel.Shard != nil || len(sel.WithoutReplicaLabels) > 0 {
		s.t.Errorf("asked for a shard or to remove labels: %+v", sel)
	}
	return s.Fake.Series(ctx, sel)
}

// supportive says of a client that it can what it does for its peer.
type supportive struct{ *storeapi.Client }

func (s supportive) Info(ctx context.Context) (storeapi.Info, error) {
	info, err := s.Client.Info(ctx)
	info.SupportsSharding, info.SupportsWithoutReplicaLabels = true, true
	return info, err
}

func TestConformanceWithIncapablePeer(t *testing.T) {
	storetest.Run(t, func(t *testing.T, in storetest.Input) storeapi.Store {
		whole := storetest.NewFakeOf(t, in)
		sel := everything()
		sel.Maxt = in.Maxt
		set, err := whole.Series(t.Context(), sel)
		require.NoError(t, err)
		defer set.Close()
		fake := storetest.NewFake(collect(set), storeapi.Info{
			Component: "sidecar", LabelSets: []labels.Labels{in.External}, Mint: in.Mint, Maxt: in.Maxt,
		})
		return supportive{remote(t, storeapi.Services{Store: incapable{fake, t}})}
	})
}

func TestErrorsOverTheWire(t *testing.T) {
	fake := storetest.NewFake(nil, storeapi.Info{})
	c := remote(t, storeapi.Services{Store: fake})
	for _, want := range []error{
		storeapi.ErrBadRequest, storeapi.ErrLimit, storeapi.ErrUnavailable, storeapi.ErrPartial, storeapi.ErrUnimplemented,
		storeapi.ErrCorrupt, context.DeadlineExceeded, context.Canceled, errors.New("something else"),
	} {
		t.Run(want.Error(), func(t *testing.T) {
			fake.Behave(storetest.Behaviour{Err: fmt.Errorf("block X: %w: because", want)})
			_, infoErr := c.Info(t.Context())
			_, _, namesErr := c.LabelNames(t.Context(), everything())
			_, _, valuesErr := c.LabelValues(t.Context(), "a", everything())
			set, err := c.Series(t.Context(), everything())
			require.NoError(t, err)
			defer set.Close()
			require.False(t, set.Next())

			fake.Behave(storetest.Behaviour{StreamErr: fmt.Errorf("block X: %w: because", want)})
			late, err := c.Series(t.Context(), everything())
			require.NoError(t, err)
			defer late.Close()
			require.False(t, late.Next())

			for _, err := range []error{infoErr, namesErr, valuesErr, set.Err(), late.Err()} {
				require.EqualError(t, err, fmt.Sprintf("peer-1: block X: %s: because", want))
				for _, s := range []error{storeapi.ErrBadRequest, storeapi.ErrLimit, storeapi.ErrPartial, storeapi.ErrUnimplemented, storeapi.ErrCorrupt} {
					require.Equal(t, s == want, errors.Is(err, s), "%s is %s", err, s)
				}
				require.Equal(t, want == storeapi.ErrUnavailable || want == context.DeadlineExceeded, errors.Is(err, storeapi.ErrUnavailable))
				require.Equal(t, want == context.DeadlineExceeded, errors.Is(err, context.DeadlineExceeded))
				require.Equal(t, want == context.Canceled, errors.Is(err, context.Canceled))
			}
		})
	}
}

// foreign is a peer that answers Series with what it is given.
type foreign struct {
	storepb.UnimplementedStoreServer
	infopb.UnimplementedInfoServer
	frames []*storepb.SeriesResponse
	err    error
}

func (f *foreign) Series(_ *storepb.SeriesRequest, s grpc.ServerStreamingServer[storepb.SeriesResponse]) error {
	for _, m := range f.frames {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	return f.err
}

func (f *foreign) dial(t *testing.T, opts ...storeapi.ClientOption) *storeapi.Client {
	conn := listen(t, false, func(s *grpc.Server) {
		storepb.RegisterStoreServer(s, f)
		infopb.RegisterInfoServer(s, f)
	})
	return storeapi.NewClient(conn, "peer-1", opts...)
}

// frame is a frame of one series with one XOR chunk from mint to maxt.
func frame(a string, mint, maxt int64) *storepb.SeriesResponse {
	return &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Series{Series: pbSeries(a, mint, maxt)}}
}

func pbSeries(a string, mint, maxt int64) *storepb.Series {
	return &storepb.Series{
		Labels: []*labelpb.Label{{Name: "a", Value: a}},
		Chunks: []*storepb.AggrChunk{{MinTime: mint, MaxTime: maxt, Raw: &storepb.Chunk{Data: []byte{0, 1, 2}, Hash: 7}}},
	}
}

// RELIABILITY rule 8: an unsorted answer is refused and counted.
func TestUnsortedPeer(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := storeapi.NewClientMetrics(reg)
	c := (&foreign{frames: []*storepb.SeriesResponse{frame("2", 0, 1), frame("1", 0, 1)}}).dial(t, storeapi.WithMetrics(m))
	set, err := c.Series(t.Context(), everything())
	require.NoError(t, err)
	defer set.Close()
	require.Len(t, collect(set), 1)
	require.ErrorIs(t, set.Err(), storeapi.ErrCorrupt)
	require.EqualError(t, set.Err(), `peer-1: corrupt data: series {a="1"} follows {a="2"}`)
	n, err := testutil.GatherAndCount(reg, "firnline_storeapi_client_corrupt_answers_total")
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

// A series may come in several frames, its chunks in any order and repeated.
func TestSeriesInSeveralFrames(t *testing.T) {
	f := &foreign{frames: []*storepb.SeriesResponse{
		frame("1", 10, 20), frame("1", 0, 5),
		{Result: &storepb.SeriesResponse_Batch{Batch: &storepb.SeriesBatch{Series: []*storepb.Series{pbSeries("1", 10, 20), pbSeries("2", 0, 1)}}}},
		{Result: &storepb.SeriesResponse_Batch{Batch: &storepb.SeriesBatch{}}},
		{},
		frame("2", 2, 3), frame("3", 0, 1),
	}}
	set, err := f.dial(t).Series(t.Context(), everything())
	require.NoError(t, err)
	defer set.Close()
	chunk := func(mint, maxt int64) storeapi.Chunk {
		return storeapi.Chunk{MinTime: mint, MaxTime: maxt, Raw: storeapi.Data{Encoding: chunkenc.EncXOR, Bytes: []byte{0, 1, 2}}}
	}
	require.Equal(t, []storeapi.Series{
		{Labels: labels.FromStrings("a", "1"), Chunks: []storeapi.Chunk{chunk(0, 5), chunk(10, 20)}},
		{Labels: labels.FromStrings("a", "2"), Chunks: []storeapi.Chunk{chunk(0, 1), chunk(2, 3)}},
		{Labels: labels.FromStrings("a", "3"), Chunks: []storeapi.Chunk{chunk(0, 1)}},
	}, collect(set))
	require.NoError(t, set.Err())
}

func TestForeignErrors(t *testing.T) {
	nested := status.Error(codes.Unknown, "receive series from s3: rpc error: code = Unavailable desc = rpc error: code = Code(422) desc = gone")
	for _, c := range []struct {
		err  error
		is   error
		text string
	}{
		{nested, nil, "peer-1: receive series from s3: gone"},
		{status.Error(codes.Code(422), "exceeded series limit"), storeapi.ErrLimit, "peer-1: limit exceeded: exceeded series limit"},
		{status.Error(codes.Aborted, "store down"), storeapi.ErrPartial, "peer-1: partial response refused: store down"},
		{status.Error(codes.InvalidArgument, "no matchers"), storeapi.ErrBadRequest, "peer-1: bad request: no matchers"},
		{
			status.Error(codes.Unavailable, `store-7: rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: dial tcp: lookup \"s\": no such host"`),
			storeapi.ErrUnavailable, `peer-1: unavailable: store-7: dial tcp: lookup "s": no such host`,
		},
	} {
		set, err := (&foreign{err: c.err}).dial(t).Series(t.Context(), everything())
		require.NoError(t, err)
		require.False(t, set.Next())
		require.EqualError(t, set.Err(), c.text)
		if c.is != nil {
			require.ErrorIs(t, set.Err(), c.is)
		}
		require.NotErrorIs(t, set.Err(), storeapi.ErrNoConnection, "the peer has answered")
		set.Close()
	}
}

func TestUnreachablePeer(t *testing.T) {
	conn, err := grpc.NewClient("127.0.0.1:1", append(storeapi.DialOptions(false), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	defer conn.Close()
	_, err = storeapi.NewClient(conn, "peer-1").Info(t.Context())
	require.ErrorIs(t, err, storeapi.ErrUnavailable)
	require.ErrorIs(t, err, storeapi.ErrNoConnection)
	require.EqualError(t, err, "peer-1: unavailable: dial tcp 127.0.0.1:1: connect: connection refused")
	_, err = storeapi.NewClient(conn, "endpoint 127.0.0.1:1").Info(t.Context())
	require.EqualError(t, err, "endpoint 127.0.0.1:1: unavailable: connection refused", "the address once")
}

func TestWarnings(t *testing.T) {
	fake := storetest.NewFake([]storeapi.Series{{Labels: labels.FromStrings("a", "1")}}, storeapi.Info{})
	id := ulid.MustNew(5, nil)
	stats := storeapi.Stats{BlocksQueried: 3, ChunksFetchedBytes: 4, GetAllNanos: 5}
	fake.Behave(storetest.Behaviour{Report: storeapi.Report{Warnings: []string{"block X is gone"}, QueriedBlocks: []ulid.ULID{id}, Stats: stats}})
	c := remote(t, storeapi.Services{Store: fake})
	sel := everything()
	sel.PartialResponse = true
	sel.BlockMatchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__block_id", id.String())}

	set, err := c.Series(t.Context(), sel)
	require.NoError(t, err)
	defer set.Close()
	require.Len(t, collect(set), 1)
	require.NoError(t, set.Err())
	require.Equal(t, storeapi.Report{Warnings: []string{"peer-1: block X is gone"}, QueriedBlocks: []ulid.ULID{id}, Stats: stats}, set.Report())

	names, r, err := c.LabelNames(t.Context(), sel)
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, names)
	require.Equal(t, storeapi.Report{Warnings: []string{"peer-1: block X is gone"}, QueriedBlocks: []ulid.ULID{id}}, r)
	values, r, err := c.LabelValues(t.Context(), "a", sel)
	require.NoError(t, err)
	require.Equal(t, []string{"1"}, values)
	require.Equal(t, []ulid.ULID{id}, r.QueriedBlocks)
	for _, got := range fake.Selections() {
		require.True(t, got.PartialResponse)
		require.Equal(t, sel.BlockMatchers[0].String(), got.BlockMatchers[0].String())
	}

	// Where nothing may be missing a warning is an error.
	sel.PartialResponse = false
	set, err = c.Series(t.Context(), sel)
	require.NoError(t, err)
	defer set.Close()
	collect(set)
	require.ErrorIs(t, set.Err(), storeapi.ErrPartial)
	_, _, err = c.LabelNames(t.Context(), sel)
	require.ErrorIs(t, err, storeapi.ErrPartial)
}

// A selection arrives as it was sent.
func TestSelectionOverTheWire(t *testing.T) {
	fake := storetest.NewFake(nil, storeapi.Info{SupportsSharding: true, SupportsWithoutReplicaLabels: true})
	c := remote(t, storeapi.Services{Store: fake})
	_, err := c.Info(t.Context())
	require.NoError(t, err)
	want := storeapi.Selection{
		Mint: -5, Maxt: 7, MaxResolution: 300_000, Aggregates: []storeapi.Aggregate{storeapi.AggregateCount, storeapi.AggregateCounter},
		SkipChunks: true, Limit: 9, WithoutReplicaLabels: []string{"r", "s"}, PartialResponse: true,
		Shard: &storeapi.Shard{Index: 1, Total: 4, By: true, Labels: []string{"x"}},
		Hints: storeapi.Hints{Func: "rate", StepMillis: 1, RangeMillis: 2, By: true, Grouping: []string{"g"}},
	}
	for typ := labels.MatchEqual; typ <= labels.MatchNotRegexp; typ++ {
		want.Matchers = append(want.Matchers, labels.MustNewMatcher(typ, "a", "b.*"))
	}
	set, err := c.Series(t.Context(), want)
	require.NoError(t, err)
	defer set.Close()
	require.False(t, set.Next())
	require.NoError(t, set.Err())
	got := fake.Selections()[0]
	for i, m := range got.Matchers {
		require.Equal(t, want.Matchers[i].String(), m.String())
	}
	got.Matchers, want.Matchers = nil, nil
	require.Equal(t, want, got)
}

func TestInfoOverTheWire(t *testing.T) {
	want := storeapi.Info{
		Component: "store", LabelSets: []labels.Labels{labels.FromStrings("a", "1"), labels.FromStrings("a", "2", "b", "3")},
		Mint: -1, Maxt: storeapi.MaxTime, SupportsSharding: true, SupportsWithoutReplicaLabels: true,
		TSDBs:    []storeapi.TSDBInfo{{Labels: labels.FromStrings("a", "1"), Mint: 1, Maxt: 2}},
		Services: storeapi.ServiceSet{Store: true},
	}
	got, err := remote(t, storeapi.Services{Store: storetest.NewFake(nil, want)}).Info(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// RELIABILITY Q1, Q7: a peer that hangs costs no longer than its client wants
// to wait, and the work below ends with the client's.
func TestCancelReachesTheServer(t *testing.T) {
	fake := storetest.NewFake([]storeapi.Series{{Labels: labels.FromStrings("a", "1")}, {Labels: labels.FromStrings("a", "2")}}, storeapi.Info{})
	c := remote(t, storeapi.Services{Store: fake})
	for name, end := range map[string]func(cancel func(), set storeapi.SeriesSet){
		"cancel": func(cancel func(), set storeapi.SeriesSet) {
			cancel()
			require.False(t, set.Next())
			require.Error(t, set.Err())
		},
		"close": func(_ func(), set storeapi.SeriesSet) {
			set.Close()
			require.False(t, set.Next())
			require.NoError(t, set.Err())
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			fake.Behave(storetest.Behaviour{SeriesDelay: time.Hour})
			set, err := c.Series(ctx, everything())
			require.NoError(t, err)
			defer set.Close()
			require.Eventually(t, func() bool { return fake.Open() == 1 }, 2*time.Minute, time.Millisecond)
			end(cancel, set)
			require.Eventually(t, func() bool { return fake.Open() == 0 }, 2*time.Minute, time.Millisecond)
		})
	}
}

// withST returns samples with start timestamps.
func withST() []storetest.Sample {
	var out []storetest.Sample
	for i := range int64(200) {
		out = append(out, storetest.Sample{ST: 500, T: 1000 + i*1000, V: float64(i)})
	}
	return out
}

// Our client gets chunks as they are; who doesn't ask gets what everyone knows.
func TestStartTimestampsAreNegotiated(t *testing.T) {
	samples := withST()
	chunks := storetest.Chunks(t, samples, true, 0)
	require.Equal(t, chunkenc.EncXOR2, chunks[0].Raw.Encoding)
	fake := storetest.NewFake([]storeapi.Series{{Labels: labels.FromStrings("a", "1"), Chunks: chunks}}, storeapi.Info{})
	conn := listen(t, false, func(s *grpc.Server) { storeapi.Register(s, storeapi.Services{Store: fake}, slog.Default()) })

	set, err := storeapi.NewClient(conn, "peer-1").Series(t.Context(), everything())
	require.NoError(t, err)
	defer set.Close()
	got := collect(set)
	require.NoError(t, set.Err())
	require.Equal(t, chunks, got[0].Chunks)

	stream, err := storepb.NewStoreClient(conn).Series(t.Context(), &storepb.SeriesRequest{MaxTime: 1 << 60})
	require.NoError(t, err)
	m, err := stream.Recv()
	require.NoError(t, err)
	var plain []storeapi.Chunk
	for _, c := range m.GetSeries().GetChunks() {
		require.Equal(t, storepb.Chunk_XOR, c.Raw.Type)
		plain = append(plain, storeapi.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Raw: storeapi.Data{Encoding: chunkenc.EncXOR, Bytes: c.Raw.Data}})
	}
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
	for i := range samples {
		samples[i].ST = 0
	}
	require.Equal(t, samples, storetest.Samples(t, plain, 0, 1<<60))
}

// bigFake has n series of ten chunks.
func bigFake(n int) *storetest.Fake {
	var all []storeapi.Series
	data := make([]byte, 160)
	for i := range n {
		s := storeapi.Series{Labels: labels.FromStrings("__name__", "http_requests_total", "instance", fmt.Sprintf("10.0.0.%06d:9090", i), "job", "api", "namespace", "default")}
		for c := range int64(10) {
			s.Chunks = append(s.Chunks, storeapi.Chunk{MinTime: c * 1000, MaxTime: c*1000 + 900, Raw: storeapi.Data{Encoding: chunkenc.EncXOR, Bytes: data}})
		}
		all = append(all, s)
	}
	return storetest.NewFake(all, storeapi.Info{SupportsSharding: true, SupportsWithoutReplicaLabels: true})
}

func BenchmarkStream(b *testing.B) {
	const n = 6400
	for _, compress := range []bool{false, true} {
		b.Run(fmt.Sprintf("series=%d/chunks=10/snappy=%v", n, compress), func(b *testing.B) {
			fake := bigFake(n)
			conn := listen(b, compress, func(s *grpc.Server) { storeapi.Register(s, storeapi.Services{Store: fake}, slog.Default()) })
			c := storeapi.NewClient(conn, "peer-1")
			b.ReportAllocs()
			for b.Loop() {
				set, err := c.Series(b.Context(), everything())
				if err != nil {
					b.Fatal(err)
				}
				got := 0
				for set.Next() {
					got++
				}
				set.Close()
				if got != n || set.Err() != nil {
					b.Fatal(got, set.Err())
				}
			}
		})
	}
}

// A peer that floods us with warnings costs bounded memory.
func TestManyWarnings(t *testing.T) {
	f := &foreign{}
	for range 3000 {
		f.frames = append(f.frames, &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Warning{Warning: "w"}})
	}
	sel := everything()
	sel.PartialResponse = true
	set, err := f.dial(t).Series(t.Context(), sel)
	require.NoError(t, err)
	defer set.Close()
	require.False(t, set.Next())
	require.NoError(t, set.Err())
	require.Len(t, set.Report().Warnings, 1000)
}

// garbage answers a call with bytes that are no message.
type garbage struct{}

func (garbage) serve(_ any, s grpc.ServerStream) error { return s.SendMsg(rawBytes{}) }

// rawBytes is a message whose bytes decode as nothing: a length beyond the end.
type rawBytes struct{}

func (rawBytes) SizeVT() int { return 2 }

func (rawBytes) MarshalToSizedBufferVT(b []byte) (int, error) { return copy(b, "\x0a\xff"), nil }

func (rawBytes) UnmarshalVT([]byte) error { return nil }

func TestGarbage(t *testing.T) {
	conn := listen(t, false, func(s *grpc.Server) {
		s.RegisterService(&grpc.ServiceDesc{ServiceName: "thanos.Store", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{
			{StreamName: "Series", Handler: garbage{}.serve, ServerStreams: true},
			{StreamName: "LabelNames", Handler: garbage{}.serve, ServerStreams: true},
		}}, garbage{})
	})
	c := storeapi.NewClient(conn, "peer-1")
	set, err := c.Series(t.Context(), everything())
	require.NoError(t, err)
	defer set.Close()
	require.False(t, set.Next())
	require.ErrorIs(t, set.Err(), storeapi.ErrCorrupt)
	require.ErrorContains(t, set.Err(), "peer-1: ")
	_, _, err = c.LabelNames(t.Context(), everything())
	require.ErrorIs(t, err, storeapi.ErrCorrupt)
}

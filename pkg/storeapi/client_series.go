package storeapi

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/firnline/firnline/pkg/storeapi/storepb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/hintspb"
)

// open begins a stream of series. The peer's refusal, too, comes out of the set.
func (c *Client) open(ctx context.Context, sel Selection) (*clientSet, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.conn.NewStream(ctx, &grpc.StreamDesc{StreamName: "Series", ServerStreams: true}, storepb.Store_Series_FullMethodName, c.call...)
	if err == nil {
		err = stream.SendMsg(fromSelection(sel))
	}
	if err == nil {
		err = stream.CloseSend()
	}
	// After io.EOF the stream knows why it ended; the first receive tells.
	if err != nil && !errors.Is(err, io.EOF) {
		cancel()
		return nil, FromStatus(c.name, err)
	}
	return &clientSet{client: c, stream: stream, cancel: cancel, partial: sel.PartialResponse}, nil
}

// clientSet is a stream of series from an endpoint. It puts together series that
// come in several frames, sorts their chunks, and refuses unsorted series.
type clientSet struct {
	client   *Client
	stream   grpc.ClientStream
	cancel   context.CancelFunc
	partial  bool
	unsorted bool // the order is not relied on

	frame inFrame
	next  int // series of frame to take next

	cur    Series
	chunks []Chunk // buffer of cur
	report Report
	err    error
	begun  bool // cur is set
	ended  bool
}

func (s *clientSet) Next() bool {
	if !s.more() {
		return false
	}
	lset := s.frame.series[s.next].Labels
	if s.begun && !s.unsorted && labels.Compare(s.cur.Labels, lset) >= 0 {
		s.fail(fmt.Errorf("%s: %w: series %s follows %s", s.client.name, ErrCorrupt, lset, s.cur.Labels))
		return false
	}
	s.chunks = s.chunks[:0]
	for s.more() && labels.Equal(s.frame.series[s.next].Labels, lset) {
		s.chunks = append(s.chunks, s.frame.series[s.next].Chunks...)
		s.next++
	}
	if s.err != nil {
		return false
	}
	s.cur, s.begun = Series{Labels: lset, Chunks: SortChunks(s.chunks)}, true
	return true
}

// more receives until there is a series to take.
func (s *clientSet) more() bool {
	for s.err == nil && s.next >= len(s.frame.series) {
		if s.ended {
			return false
		}
		s.receive()
	}
	return s.err == nil
}

func (s *clientSet) receive() {
	s.next, s.frame.series = 0, s.frame.series[:0]
	if err := s.stream.RecvMsg(&s.frame); err != nil {
		s.frame.series = s.frame.series[:0]
		if errors.Is(err, io.EOF) {
			s.end()
			return
		}
		s.fail(FromStatus(s.client.name, err))
		return
	}
	if s.frame.warning != "" {
		if err := s.client.warn(&s.report.Warnings, s.frame.warning, s.partial); err != nil {
			s.fail(err)
			return
		}
	}
	var hints hintspb.SeriesResponseHints
	if err := fromAny(s.frame.hints, seriesResponseHints, &hints); err != nil {
		s.fail(fmt.Errorf("%s: %w: %w", s.client.name, ErrCorrupt, err))
		return
	}
	s.report.Add(Report{QueriedBlocks: toBlocks(hints.QueriedBlocks), Stats: toStats(hints.QueryStats)})
}

func (s *clientSet) fail(err error) {
	if errors.Is(err, ErrCorrupt) {
		s.client.metrics.corrupt.Inc()
	}
	s.err = err
	s.end()
}

// end lets go of the stream.
func (s *clientSet) end() {
	s.ended = true
	s.cancel()
}

func (s *clientSet) At() Series     { return s.cur }
func (s *clientSet) Err() error     { return s.err }
func (s *clientSet) Report() Report { return s.report }

// Close cancels the stream and waits until gRPC has let go of it.
func (s *clientSet) Close() {
	if !s.ended {
		s.end()
		for s.stream.RecvMsg(nothing{}) == nil {
		}
	}
	s.next, s.frame.series = 0, nil
}

// nothing takes any message and keeps none of it.
type nothing struct{}

func (nothing) buffers() mem.BufferSlice { return nil }
func (nothing) decode([]byte) error      { return nil }

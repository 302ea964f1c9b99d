package replicate

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/prometheus/prometheus/prompb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// Fields of Thanos' WriteRequest. Receives before 0.43 know no others, and later
// ones take these too.
const (
	fieldTimeseries = 1<<3 | 2
	fieldTenant     = 2<<3 | 2
	fieldReplica    = 3 << 3 // a number; the others are bytes
)

// storeHere is the replica number, counted from 1, by which a receive knows that
// the series are meant for itself. Which of the copies it is means nothing to it.
const storeHere = 1

// RegisterWriteable offers Thanos' WriteableStore to Thanos' routers. write is given the
// bytes of a WriteRequest, which it may not keep; its field 3, replica, says what to do:
// 0 to distribute the series, anything else to store them here (Replicator.Local).
func RegisterWriteable(r grpc.ServiceRegistrar, read Reading, write func(ctx context.Context, request []byte) error) {
	RegisterUnary(r, Unary{Service: writeableService, Method: "RemoteWrite"}, func(ctx context.Context) (func(), error) {
		done, err := read(ctx)
		if err != nil {
			return nil, thanosStatus(err)
		}
		return done, nil
	}, func(ctx context.Context, request []byte) ([]byte, error) {
		if err := write(ctx, request); err != nil {
			return nil, thanosStatus(err)
		}
		return nil, nil
	})
}

// thanosStatus says an error as Thanos' routers understand it: Unavailable is
// tried again, AlreadyExists is a conflict that is not.
func thanosStatus(err error) error {
	e, ok := errors.AsType[*refuse.Error](err)
	switch {
	case !ok:
		return status.Error(codes.Internal, err.Error())
	case e.Reason.Retry():
		return status.Error(codes.Unavailable, err.Error())
	case isConflict(e.Reason):
		return status.Error(codes.AlreadyExists, err.Error())
	}
	return status.Error(codes.InvalidArgument, err.Error())
}

func isConflict(r refuse.Reason) bool {
	switch r {
	case refuse.SampleTooOld, refuse.SampleOutOfOrder, refuse.SampleTooFarInTime, refuse.SampleDuplicate:
		return true
	}
	return false
}

// appendThanos writes to a Thanos receive.
func (c *client) appendThanos(ctx context.Context, w *batch.Write) (batch.Result, error) {
	request := c.buffers.get()
	defer c.buffers.put(request)
	var err error
	if *request, err = appendWriteRequest(*request, w); err != nil {
		return batch.Result{}, c.wrap(err)
	}
	c.metrics.bytes.Add(float64(len(*request)))
	err = c.conn.Invoke(ctx, remoteWrite, &message{*request}, &message{})
	switch status.Code(err) {
	case codes.OK:
		return batch.Result{}, nil
	case codes.AlreadyExists:
		// It has taken what had no conflict, and does not say which that was.
		return batch.Result{}, refuse.Errorf(refuse.SampleOutOfOrder, w.Tenant, "node %s (Thanos): %s", c.name, status.Convert(err).Message())
	case codes.InvalidArgument:
		return batch.Result{}, refuse.Errorf(refuse.BadRequest, w.Tenant, "node %s (Thanos): %s", c.name, status.Convert(err).Message())
	case codes.Unimplemented:
		c.thanos.Store(0) // it is none, or no more
	}
	return batch.Result{}, c.wrap(err)
}

// appendWriteRequest writes the series of w as a Thanos' WriteRequest.
func appendWriteRequest(b []byte, w *batch.Write) ([]byte, error) {
	for _, n := range w.Only {
		ls, err := w.Batch.Labels(int(n))
		if err != nil {
			return b, err
		}
		s := &w.Batch.Series[n]
		ts := prompb.TimeSeries{Labels: prompb.FromLabels(ls, nil)}
		for _, x := range w.Batch.Floats[s.Floats.From:s.Floats.To] {
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: x.T, Value: x.V})
		}
		for _, x := range w.Batch.Histograms[s.Histograms.From:s.Histograms.To] {
			if x.H != nil {
				ts.Histograms = append(ts.Histograms, prompb.FromIntHistogram(x.T, x.H))
			} else {
				ts.Histograms = append(ts.Histograms, prompb.FromFloatHistogram(x.T, x.FH))
			}
		}
		for _, x := range w.Batch.Exemplars[s.Exemplars.From:s.Exemplars.To] {
			ts.Exemplars = append(ts.Exemplars, prompb.Exemplar{Labels: prompb.FromLabels(x.Labels, nil), Value: x.Value, Timestamp: x.Ts})
		}
		size := ts.Size()
		b = binary.AppendUvarint(append(b, fieldTimeseries), uint64(size))
		at := len(b)
		b = append(b, make([]byte, size)...)
		if _, err := ts.MarshalToSizedBuffer(b[at:]); err != nil {
			return b, err
		}
	}
	b = appendString(append(b, fieldTenant), string(w.Tenant))
	return append(b, fieldReplica, storeHere), nil
}

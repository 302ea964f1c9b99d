package heads

import (
	"context"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

// histogramsAt are the kinds of series with histograms, each with one at a time.
func histogramsAt(at int64) (out []storetest.Series) {
	for _, s := range kinds(0) {
		if first := s.Samples[0]; first.H != nil || first.FH != nil {
			first.ST, first.T = 0, start+at
			s.Samples = []storetest.Sample{first}
			out = append(out, s)
		}
	}
	return out
}

// TestSentAgain: what was written is taken as often as it is sent, histograms too, which the
// TSDB counts as out of order then.
//
// RELIABILITY I10
func TestSentAgain(t *testing.T) {
	for _, window := range []time.Duration{0, time.Hour} {
		t.Run(window.String(), func(t *testing.T) {
			r := newRig(t, func(c *Config, _ *Parts) { c.OutOfOrderWindow = model.Duration(window) })
			w := func() *batch.Write {
				return write("t", 1, append(histogramsAt(0), one("up", 0, 1))...)
			}
			r.put(w())
			before := r.read(t.Context(), everything())
			require.Greater(t, len(before), 4)
			for range 3 {
				r.put(w())
			}
			require.Equal(t, before, r.read(t.Context(), everything()))
		})
	}
}

// TestOvertakenHistograms: a histogram that is older than the out-of-order window and in
// order when it is offered, and not any more at the commit, is not acknowledged.
//
// RELIABILITY P1
func TestOvertakenHistograms(t *testing.T) {
	const minute = int64(time.Minute / time.Millisecond)
	for n, kind := range histogramsAt(0) {
		name := kind.Labels.Get("__name__")
		t.Run(name, func(t *testing.T) {
			var slow atomic.Bool // the next write stands still before its commit
			offered, proceed := make(chan struct{}), make(chan struct{})
			r := newRig(t, func(c *Config, p *Parts) {
				c.OutOfOrderWindow, c.TooFarAhead = model.Duration(time.Minute), 0
				p.Fault = func(step string) error {
					if step == "append/commit" && slow.CompareAndSwap(true, false) {
						close(offered)
						<-proceed
					}
					return nil
				}
			})
			at := func(minutes int64) *batch.Write {
				return write("t", 1, histogramsAt(minutes * minute)[n])
			}
			r.put(write("t", 100, one("other", float64(30*minute), 1))) // which moves the tenant's newest
			r.put(at(1))

			slow.Store(true)
			type answer struct {
				res batch.Result
				err error
			}
			late := make(chan answer, 1)
			go func() {
				res, err := r.Append(context.Background(), at(2))
				late <- answer{res, err}
			}()
			<-offered
			r.put(at(3))
			close(proceed)
			got := <-late
			asRefuse(t, got.err, refuse.Unavailable)
			require.Len(t, r.read(t.Context(), everything())[seriesName(name)], 2)

			res, err := r.Append(t.Context(), at(2))
			require.NoError(t, err)
			require.Len(t, res.Refused, 1)
			require.Equal(t, refuse.SampleTooOld, res.Refused[0].Err.Reason)
			r.put(at(4)) // in order, and behind the window
			require.Len(t, r.read(t.Context(), everything())[seriesName(name)], 3)

			// The end of the series is a float, which becomes a histogram at the commit.
			end := write("t", 1, kind)
			end.Batch.Floats, end.Batch.Histograms = []batch.Float{{T: start + 5*minute, V: math.Float64frombits(value.StaleNaN)}}, nil
			end.Batch.Series[0].Floats, end.Batch.Series[0].Histograms = batch.Span{To: 1}, batch.Span{}
			r.put(end)
			require.Len(t, r.read(t.Context(), everything())[seriesName(name)], 4)
		})
	}
}

// TestOvertakenWithoutWindow: of a histogram that is sent again only what is not there fails the write.
func TestOvertakenWithoutWindow(t *testing.T) {
	r := newRig(t)
	twice := write("t", 1, histogramsAt(2000)[0], histogramsAt(1000)[0])
	twice.Batch.Series[1].ID = twice.Batch.Series[0].ID
	_, err := r.Append(t.Context(), twice)
	asRefuse(t, err, refuse.Unavailable)
	res, err := r.Append(t.Context(), twice)
	require.NoError(t, err)
	require.Len(t, res.Refused, 1)
	require.EqualValues(t, 1, res.Refused[0].Series)
	require.Equal(t, refuse.SampleOutOfOrder, res.Refused[0].Err.Reason)
}

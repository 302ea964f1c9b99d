package replicate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/storeapi"
)

// client speaks to another node. Its errors are refusals when the node has
// answered, and anything else when it is not known to have heard of the request.
type client struct {
	conn     grpc.ClientConnInterface
	name     string
	compress bool
	maxFrame int64
	metrics  *metrics
	now      func() time.Time

	known   sessions
	writers sync.Pool
	buffers buffers
	// thanos is until when the node is taken for a Thanos receive, Unix ns. Then
	// it is asked again: it may have been replaced.
	thanos atomic.Int64
}

// askAgain is how long a node that does not know our service is spoken to as Thanos'.
const askAgain = time.Minute

func newClient(conn grpc.ClientConnInterface, name string, cfg Config, m *metrics, now func() time.Time) *client {
	return &client{conn: conn, name: name, compress: cfg.Compression == "snappy", maxFrame: cfg.MaxFrameBytes, metrics: m, now: now}
}

// errUnknown says that a node does not know series although it was given their labels.
var errUnknown = errors.New("it does not know series that it was given the labels of")

// Append implements Owner. Series that the node turns out not to know are sent again with their labels.
func (c *client) Append(ctx context.Context, w *batch.Write) (batch.Result, error) {
	if c.now().UnixNano() < c.thanos.Load() {
		return c.appendThanos(ctx, w)
	}
	s := c.known.get(w.Session)
	res, err := c.send(ctx, w, s)
	if status.Code(err) == codes.Unimplemented {
		c.thanos.Store(c.now().Add(askAgain).UnixNano())
		return c.appendThanos(ctx, w)
	}
	if err == nil && len(res.Unknown) > 0 {
		res, err = c.sendUnknown(ctx, w, s, res)
	}
	if err != nil {
		return batch.Result{}, c.wrap(err)
	}
	s.tell(w.Tenant, w.Batch.Families, c.now())
	return res, nil
}

// wrap names the node in an error that is not a refusal of its own, in words: senders read it.
func (c *client) wrap(err error) error {
	if _, ok := errors.AsType[*refuse.Error](err); ok {
		return err
	}
	if errors.Is(err, io.EOF) { // which a stream of gRPC may end with, a call not
		return fmt.Errorf("node %s: %w", c.name, err)
	}
	return fmt.Errorf("node %w", storeapi.FromStatus(c.name, err))
}

// sendUnknown sends those series again that the node does not know.
func (c *client) sendUnknown(ctx context.Context, w *batch.Write, s *session, first batch.Result) (batch.Result, error) {
	again := *w
	again.Only = first.Unknown
	c.metrics.resent.Add(float64(len(again.Only)))
	s.learn(&again, nil, false)
	res, err := c.send(ctx, &again, s)
	if err == nil && len(res.Unknown) > 0 {
		err = errUnknown
	}
	return batch.Result{Refused: append(first.Refused, res.Refused...)}, err
}

// send sends a Write, in halves as long as it is too large.
func (c *client) send(ctx context.Context, w *batch.Write, s *session) (batch.Result, error) {
	frame := c.buffers.get()
	defer c.buffers.put(frame)
	size, defined, err := c.encode(frame, w, s)
	if err != nil {
		return batch.Result{}, err
	}
	if size <= c.maxFrame {
		res, err := c.exchange(ctx, *frame, w)
		if err == nil && defined > 0 {
			s.learn(w, untaken(res), true)
		}
		return res, err
	}
	if len(w.Only) < 2 {
		return batch.Result{}, refuse.Errorf(refuse.RequestTooLarge, w.Tenant, "one series makes a message of %d bytes between nodes, at most %d are allowed (--receive.forward-max-frame-bytes)", size, c.maxFrame)
	}
	var all batch.Result
	for half := range slices.Chunk(w.Only, (len(w.Only)+1)/2) {
		part := *w
		part.Only = half
		res, err := c.send(ctx, &part, s)
		if err != nil {
			return batch.Result{}, err
		}
		all.Unknown, all.Refused = append(all.Unknown, res.Unknown...), append(all.Refused, res.Refused...)
	}
	return all, nil
}

// encode makes the frame of w and returns how large its payload is and how many
// series it defines.
func (c *client) encode(frame *[]byte, w *batch.Write, s *session) (size int64, defined int, err error) {
	f, ok := c.writers.Get().(*frameWriter)
	if !ok {
		f = &frameWriter{}
	}
	defer c.writers.Put(f)
	now := c.now()
	s.mu.RLock()
	payload, err := f.write(w, func(id uint64) bool { return !s.knows(id) }, func(i int) bool { return !s.told(w.Tenant, &w.Batch.Families[i], now) })
	s.mu.RUnlock()
	if err != nil {
		return 0, 0, fmt.Errorf("labels of a series: %w", err)
	}
	if int64(len(payload)) <= c.maxFrame {
		*frame = seal(*frame, payload, c.compress)
	}
	return int64(len(payload)), f.defined, nil
}

// exchange sends the frame of w and returns the answer.
func (c *client) exchange(ctx context.Context, frame []byte, w *batch.Write) (batch.Result, error) {
	c.metrics.bytes.Add(float64(len(frame)))
	var reply message
	if err := c.conn.Invoke(withSize(ctx, frame), appendMethod, &message{frame}, &reply); err != nil {
		return batch.Result{}, err
	}
	var scratch []byte
	payload, err := unseal(reply.b, c.maxFrame, &scratch, func(int64) error { return nil })
	if err != nil {
		return batch.Result{}, err
	}
	res, err := readAnswer(payload, len(w.Only), w.Tenant)
	if err != nil {
		return batch.Result{}, err
	}
	for i, n := range res.Unknown { // of the frame; now of the Batch
		res.Unknown[i] = w.Only[n]
	}
	for i := range res.Refused {
		res.Refused[i].Series = w.Only[res.Refused[i].Series]
	}
	return res, nil
}

// untaken are the series of a Write that the node may not know after it: those
// that it refused may not have been created.
func untaken(res batch.Result) map[uint32]struct{} {
	if len(res.Unknown)+len(res.Refused) == 0 {
		return nil
	}
	out := make(map[uint32]struct{}, len(res.Unknown)+len(res.Refused))
	for _, n := range res.Unknown {
		out[n] = struct{}{}
	}
	for _, x := range res.Refused {
		out[x.Series] = struct{}{}
	}
	return out
}

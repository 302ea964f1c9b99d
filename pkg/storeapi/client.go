package storeapi

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/firnline/firnline/pkg/storeapi/storepb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/hintspb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/infopb"
)

// Client is the endpoint at the other end of a connection: a Store, and each of
// the services beside it. Errors and warnings name the endpoint. It is safe for
// concurrent use and owns no goroutines; contexts end its calls.
type Client struct {
	conn    grpc.ClientConnInterface
	name    string
	metrics *ClientMetrics
	call    []grpc.CallOption

	// last is the last answer of Info. Until there is one the peer is believed
	// capable of nothing that could be done here instead.
	last atomic.Pointer[Info]
}

var (
	_ Store           = (*Client)(nil)
	_ RulesSource     = (*Client)(nil)
	_ TargetsSource   = (*Client)(nil)
	_ MetadataSource  = (*Client)(nil)
	_ ExemplarsSource = (*Client)(nil)
	_ StatusSource    = (*Client)(nil)
	_ QuerySource     = (*Client)(nil)
)

// ClientMetrics count what all clients of a process see.
type ClientMetrics struct {
	corrupt prometheus.Counter
}

// NewClientMetrics registers the metrics of clients.
func NewClientMetrics(reg prometheus.Registerer) *ClientMetrics {
	return &ClientMetrics{corrupt: promauto.With(reg).NewCounter(prometheus.CounterOpts{
		Name: "firnline_storeapi_client_corrupt_answers_total",
		Help: "Streams of series given up since the endpoint sent what can't be right: unsorted series or bytes that don't decode.",
	})}
}

// ClientOption is an option of NewClient.
type ClientOption func(*Client)

// WithMetrics makes a Client count in m.
func WithMetrics(m *ClientMetrics) ClientOption { return func(c *Client) { c.metrics = m } }

// NewClient returns the endpoint behind conn, which was dialled with
// DialOptions. The name is what errors and warnings call it.
func NewClient(conn grpc.ClientConnInterface, name string, opts ...ClientOption) *Client {
	c := &Client{conn: conn, name: name, metrics: NewClientMetrics(nil), call: []grpc.CallOption{grpc.ForceCodecV2(newCodec())}}
	for _, o := range opts {
		o(c)
	}
	return c
}

// String returns the endpoint's name.
func (c *Client) String() string { return c.name }

// Info asks the endpoint what it is, and takes note of what it is capable of.
func (c *Client) Info(ctx context.Context) (Info, error) {
	resp, err := infopb.NewInfoClient(c.conn).Info(ctx, &infopb.InfoRequest{}, c.call...)
	if err != nil {
		return Info{}, FromStatus(c.name, err)
	}
	info := toInfo(resp)
	c.last.Store(&info)
	return info, nil
}

// Series implements Store. What the peer can't do by its last Info is done here:
// removing replica labels, which then holds the whole answer in memory, and sharding.
func (c *Client) Series(ctx context.Context, sel Selection) (SeriesSet, error) {
	peer := c.last.Load()
	if peer == nil {
		peer = &Info{}
	}
	ask := sel
	resort := len(sel.WithoutReplicaLabels) > 0 && !peer.SupportsWithoutReplicaLabels
	// A shard is one of the labels that are left, so it can't be chosen before they are removed.
	filter := sel.Shard != nil && (resort || !peer.SupportsSharding)
	if resort {
		ask.WithoutReplicaLabels = nil
	}
	if filter {
		ask.Shard = nil
	}
	if resort || filter {
		ask.Limit = 0
	}
	set, err := c.open(ctx, ask)
	if err != nil {
		return nil, err
	}
	set.unsorted = resort
	var out SeriesSet = set
	if resort {
		out = Sorted(out, NewExtender(labels.EmptyLabels(), sel.WithoutReplicaLabels))
	}
	if filter {
		out = Sharded(out, sel.Shard)
	}
	return Limit(out, sel.Limit), nil
}

// LabelNames implements Store.
func (c *Client) LabelNames(ctx context.Context, sel Selection) ([]string, Report, error) {
	req := &storepb.LabelNamesRequest{
		Start: sel.Mint, End: sel.Maxt, Matchers: fromMatchers(sel.Matchers), WithoutReplicaLabels: sel.WithoutReplicaLabels, Limit: int64(sel.Limit),
		PartialResponseDisabled: !sel.PartialResponse, PartialResponseStrategy: strategy(sel.PartialResponse),
		Hints: toAny(labelNamesRequestHints, &hintspb.LabelNamesRequestHints{BlockMatchers: fromMatchers(sel.BlockMatchers)}),
	}
	resp, err := storepb.NewStoreClient(c.conn).LabelNames(ctx, req, c.call...)
	if err != nil {
		return nil, Report{}, FromStatus(c.name, err)
	}
	var hints hintspb.LabelNamesResponseHints
	if err := fromAny(resp.Hints, labelNamesResponseHints, &hints); err != nil {
		return nil, Report{}, fmt.Errorf("%s: %w: %w", c.name, ErrCorrupt, err)
	}
	r, err := c.report(resp.Warnings, hints.QueriedBlocks, sel.PartialResponse)
	names := slices.DeleteFunc(resp.Names, func(n string) bool { return slices.Contains(sel.WithoutReplicaLabels, n) })
	return limitNames(sorted(names), sel.Limit), r, err
}

// sorted sorts names or values which a peer should have sorted.
func sorted(in []string) []string {
	if !slices.IsSorted(in) {
		slices.Sort(in)
	}
	return slices.Compact(in)
}

// LabelValues implements Store.
func (c *Client) LabelValues(ctx context.Context, name string, sel Selection) ([]string, Report, error) {
	if name == "" {
		return nil, Report{}, fmt.Errorf("%w: label name parameter cannot be empty", ErrBadRequest)
	}
	req := &storepb.LabelValuesRequest{
		Label: name,
		Start: sel.Mint, End: sel.Maxt, Matchers: fromMatchers(sel.Matchers), WithoutReplicaLabels: sel.WithoutReplicaLabels, Limit: int64(sel.Limit),
		PartialResponseDisabled: !sel.PartialResponse, PartialResponseStrategy: strategy(sel.PartialResponse),
		Hints: toAny(labelValuesRequestHints, &hintspb.LabelValuesRequestHints{BlockMatchers: fromMatchers(sel.BlockMatchers)}),
	}
	resp, err := storepb.NewStoreClient(c.conn).LabelValues(ctx, req, c.call...)
	if err != nil {
		return nil, Report{}, FromStatus(c.name, err)
	}
	var hints hintspb.LabelValuesResponseHints
	if err := fromAny(resp.Hints, labelValuesResponseHints, &hints); err != nil {
		return nil, Report{}, fmt.Errorf("%s: %w: %w", c.name, ErrCorrupt, err)
	}
	r, err := c.report(resp.Warnings, hints.QueriedBlocks, sel.PartialResponse)
	if slices.Contains(sel.WithoutReplicaLabels, name) {
		return nil, r, err // a peer that doesn't know of replica labels tells their values
	}
	return limitNames(sorted(resp.Values), sel.Limit), r, err
}

func (c *Client) report(warnings []string, blocks []*hintspb.Block, partial bool) (Report, error) {
	r := Report{QueriedBlocks: toBlocks(blocks)}
	for _, w := range warnings {
		if err := c.warn(&r.Warnings, w, partial); err != nil {
			return r, err
		}
	}
	return r, nil
}

// maxWarnings is how many warnings of an answer are kept. More of them tell nothing new.
const maxWarnings = 1000

// warn adds a warning of the endpoint, or makes an error of it where nothing may be missing.
func (c *Client) warn(to *[]string, warning string, partial bool) error {
	warning = plainText(warning)
	if !partial {
		return fmt.Errorf("%s: %w: %s", c.name, ErrPartial, warning)
	}
	if len(*to) < maxWarnings {
		*to = append(*to, c.name+": "+warning)
	}
	return nil
}

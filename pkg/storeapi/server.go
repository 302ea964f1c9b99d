package storeapi

import (
	"context"
	"errors"
	"log/slog"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/firnline/firnline/pkg/storeapi/storepb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/hintspb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/infopb"
)

// Register puts services on a gRPC server, which must have been made with
// ServerOptions. Store must be set; those that are nil are registered too and
// answer Unimplemented. Info tells of what is there, whatever
// Info.Services says, so that a component need not keep the two in step.
func Register(srv grpc.ServiceRegistrar, svc Services, log *slog.Logger) {
	h := handler{svc: svc, log: log}
	infopb.RegisterInfoServer(srv, &infoServer{handler: h})
	storepb.RegisterStoreServer(srv, &storeServer{handler: h})
	storepb.RegisterRulesServer(srv, &rulesServer{handler: h})
	storepb.RegisterTargetsServer(srv, &targetsServer{handler: h})
	storepb.RegisterMetadataServer(srv, &metadataServer{handler: h})
	storepb.RegisterExemplarsServer(srv, &exemplarsServer{handler: h})
	storepb.RegisterStatusServer(srv, &statusServer{handler: h})
	storepb.RegisterQueryServer(srv, &queryServer{handler: h})
}

// handler is what the servers of all services share.
type handler struct {
	svc Services
	log *slog.Logger
}

// fail makes the status of an error. Those of unknown kind are logged: a caller
// may have no more than a warning of it.
func (h *handler) fail(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok { // gRPC's own: the client has gone while we sent
		return err
	}
	known := false
	for _, k := range kinds() {
		known = known || errors.Is(err, k.err)
	}
	if !known && ctx.Err() == nil {
		h.log.ErrorContext(ctx, "request failed", "method", method, "err", err)
	}
	return toStatus(err)
}

type infoServer struct {
	infopb.UnimplementedInfoServer
	handler
}

func (s *infoServer) Info(ctx context.Context, _ *infopb.InfoRequest) (*infopb.InfoResponse, error) {
	info, err := s.svc.Store.Info(ctx)
	if err != nil {
		return nil, s.fail(ctx, "Info", err)
	}
	return fromInfo(info, s.svc), nil
}

// Announced returns what an endpoint that serves svc tells of itself: what its
// Store tells, and the services that are there.
func Announced(info Info, svc Services) Info {
	own := info.Services
	info.Services = ServiceSet{
		Store: svc.Store != nil, Rules: svc.Rules != nil, Targets: svc.Targets != nil, Metadata: svc.Metadata != nil,
		Exemplars: svc.Exemplars != nil, Query: svc.Query != nil, Status: svc.Status != nil,
	}
	if svc.Exemplars != nil {
		info.Services.ExemplarsMint, info.Services.ExemplarsMaxt = own.ExemplarsMint, own.ExemplarsMaxt
		if !own.Exemplars {
			info.Services.ExemplarsMint, info.Services.ExemplarsMaxt = math.MinInt64, math.MaxInt64
		}
	}
	return info
}

func fromInfo(info Info, svc Services) *infopb.InfoResponse {
	info = Announced(info, svc)
	out := &infopb.InfoResponse{
		ComponentType: info.Component,
		Store: &infopb.StoreInfo{
			MinTime: info.Mint, MaxTime: info.Maxt,
			SupportsSharding:             info.SupportsSharding,
			SupportsWithoutReplicaLabels: info.SupportsWithoutReplicaLabels,
		},
	}
	for _, l := range info.LabelSets {
		out.LabelSets = append(out.LabelSets, fromLabelSet(l))
	}
	for _, t := range info.TSDBs {
		out.Store.TsdbInfos = append(out.Store.TsdbInfos, &infopb.TSDBInfo{Labels: fromLabelSet(t.Labels), MinTime: t.Mint, MaxTime: t.Maxt})
	}
	if info.Services.Rules {
		out.Rules = &infopb.RulesInfo{}
	}
	if info.Services.Metadata {
		out.MetricMetadata = &infopb.MetricMetadataInfo{}
	}
	if info.Services.Targets {
		out.Targets = &infopb.TargetsInfo{}
	}
	if info.Services.Exemplars {
		out.Exemplars = &infopb.ExemplarsInfo{MinTime: info.Services.ExemplarsMint, MaxTime: info.Services.ExemplarsMaxt}
	}
	if info.Services.Query {
		out.Query = &infopb.QueryAPIInfo{}
	}
	if info.Services.Status {
		out.Status = &infopb.StatusInfo{}
	}
	return out
}

func toInfo(in *infopb.InfoResponse) Info {
	info := Info{
		Component: in.ComponentType,
		Services: ServiceSet{
			Store: in.Store != nil, Rules: in.Rules != nil, Targets: in.Targets != nil, Metadata: in.MetricMetadata != nil,
			Exemplars: in.Exemplars != nil, Query: in.Query != nil, Status: in.Status != nil,
			ExemplarsMint: in.Exemplars.GetMinTime(), ExemplarsMaxt: in.Exemplars.GetMaxTime(),
		},
		Mint: in.Store.GetMinTime(), Maxt: in.Store.GetMaxTime(),
		SupportsSharding:             in.Store.GetSupportsSharding(),
		SupportsWithoutReplicaLabels: in.Store.GetSupportsWithoutReplicaLabels(),
	}
	for _, l := range in.LabelSets {
		info.LabelSets = append(info.LabelSets, toLabels(l.GetLabels()))
	}
	for _, t := range in.Store.GetTsdbInfos() {
		info.TSDBs = append(info.TSDBs, TSDBInfo{Labels: toLabels(t.GetLabels().GetLabels()), Mint: t.MinTime, Maxt: t.MaxTime})
	}
	return info
}

type storeServer struct {
	storepb.UnimplementedStoreServer
	handler
}

func (s *storeServer) Series(req *storepb.SeriesRequest, stream grpc.ServerStreamingServer[storepb.SeriesResponse]) error {
	ctx := stream.Context()
	return s.fail(ctx, "Series", s.series(ctx, req, stream))
}

func (s *storeServer) series(ctx context.Context, req *storepb.SeriesRequest, to sink) error {
	sel, stats, err := toSelection(req)
	if err != nil {
		return err
	}
	set, err := s.svc.Store.Series(ctx, sel)
	if err != nil {
		return err
	}
	defer set.Close()
	w := newFrameWriter(to, req.ResponseBatchSize, req.FirnlineEncodings)
	defer w.close()
	for set.Next() {
		if err := w.series(set.At()); err != nil {
			return err
		}
	}
	if err := set.Err(); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	return sendReport(to, set.Report(), req.Hints != nil, stats)
}

// sendReport sends what is told beside the series: warnings, and for those who
// have sent hints the blocks and, if asked for, statistics.
func sendReport(to sink, r Report, hints, stats bool) error {
	for _, w := range r.Warnings {
		if err := to.SendMsg(&storepb.SeriesResponse{Result: &storepb.SeriesResponse_Warning{Warning: w}}); err != nil {
			return err
		}
	}
	if !hints || !stats && len(r.QueriedBlocks) == 0 {
		return nil
	}
	h := &hintspb.SeriesResponseHints{QueriedBlocks: fromBlocks(r.QueriedBlocks)}
	if stats {
		h.QueryStats = fromStats(r.Stats)
	}
	return to.SendMsg(&storepb.SeriesResponse{Result: &storepb.SeriesResponse_Hints{Hints: toAny(seriesResponseHints, h)}})
}

func (s *storeServer) LabelNames(ctx context.Context, req *storepb.LabelNamesRequest) (*storepb.LabelNamesResponse, error) {
	var hints hintspb.LabelNamesRequestHints
	sel, err := labelSelection(req, req.Hints, labelNamesRequestHints, &hints)
	if err == nil {
		sel.BlockMatchers, err = toMatchers(hints.BlockMatchers)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	names, r, err := s.svc.Store.LabelNames(ctx, sel)
	if err != nil {
		return nil, s.fail(ctx, "LabelNames", err)
	}
	out := &storepb.LabelNamesResponse{Names: limitNames(names, sel.Limit), Warnings: r.Warnings}
	if req.Hints != nil {
		out.Hints = toAny(labelNamesResponseHints, &hintspb.LabelNamesResponseHints{QueriedBlocks: fromBlocks(r.QueriedBlocks)})
	}
	return out, nil
}

func (s *storeServer) LabelValues(ctx context.Context, req *storepb.LabelValuesRequest) (*storepb.LabelValuesResponse, error) {
	var hints hintspb.LabelValuesRequestHints
	sel, err := labelSelection(req, req.Hints, labelValuesRequestHints, &hints)
	if err == nil {
		sel.BlockMatchers, err = toMatchers(hints.BlockMatchers)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	values, r, err := s.svc.Store.LabelValues(ctx, req.Label, sel)
	if err != nil {
		return nil, s.fail(ctx, "LabelValues", err)
	}
	out := &storepb.LabelValuesResponse{Values: limitNames(values, sel.Limit), Warnings: r.Warnings}
	if req.Hints != nil {
		out.Hints = toAny(labelValuesResponseHints, &hintspb.LabelValuesResponseHints{QueriedBlocks: fromBlocks(r.QueriedBlocks)})
	}
	return out, nil
}

// labelRequest is what the requests for names and values have in common.
type labelRequest interface {
	GetStart() int64
	GetEnd() int64
	GetMatchers() []*storepb.LabelMatcher
	GetWithoutReplicaLabels() []string
	GetLimit() int64
	GetPartialResponseDisabled() bool
	GetPartialResponseStrategy() storepb.PartialResponseStrategy
}

// labelSelection decodes a request and its hints, but for the block matchers.
func labelSelection(req labelRequest, in *anypb.Any, name string, hints message) (Selection, error) {
	ms, err := toMatchers(req.GetMatchers())
	if err == nil {
		if herr := fromAny(in, name, hints); herr != nil {
			err = errors.Join(ErrBadRequest, herr)
		}
	}
	return Selection{
		Mint: req.GetStart(), Maxt: req.GetEnd(), Matchers: ms,
		WithoutReplicaLabels: req.GetWithoutReplicaLabels(),
		Limit:                toLimit(req.GetLimit()),
		PartialResponse:      isPartial(req.GetPartialResponseDisabled(), req.GetPartialResponseStrategy()),
	}, err
}

var _ labelRequest = (*storepb.LabelNamesRequest)(nil)

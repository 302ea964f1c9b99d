package endpoint

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/firnline/firnline/pkg/storeapi"
)

// Local is an endpoint in this process. It is called directly; all else is as
// with one that is connected.
type Local struct {
	Name     string
	Services storeapi.Services // Store must be set
}

// localPatience bounds how long a Local may take to tell what it holds. It is
// asked with each query, and what it knows is in memory.
const localPatience = 500 * time.Millisecond

// local is a Local with its health. What it holds is asked anew each time it is
// wanted, since that costs no call: a query sees what came a moment ago.
type local struct {
	Local
	now func() time.Time

	mu struct {
		sync.Mutex
		health health
	}
}

func newLocal(l Local, now func() time.Time) *local {
	info := &direct{name: errorName(l.Name), own: l.Services}
	return &local{Local: Local{Name: l.Name, Services: info.services()}, now: now}
}

// look asks what the endpoint holds.
func (l *local) look() health {
	ctx, cancel := context.WithTimeout(context.Background(), localPatience)
	defer cancel()
	info, err := l.Services.Store.Info(ctx)
	if err != nil {
		err = explain(l.Name, err, localPatience)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.health = l.mu.health.after(l.now(), info, err)
	return l.mu.health
}

// peer returns the endpoint as fan-out sees it.
func (l *local) peer() Peer {
	h := l.look()
	p := Peer{Name: l.Name, Info: h.info, Known: h.known, Services: l.Services}
	if h.err != nil {
		p.Down = fmt.Errorf("%w since %s: %s", storeapi.ErrUnavailable, h.since.UTC().Format(time.RFC3339), h.err.Error())
	}
	return p
}

func (l *local) status() Status { return statusOf(l.Name, false, l.look()) }

// direct calls services of this process as a connection would: errors and
// warnings name the endpoint, what is missing is ErrUnimplemented, and Info
// tells of what is there.
type direct struct {
	name string
	own  storeapi.Services
}

func (d *direct) services() storeapi.Services {
	return storeapi.Services{Store: d, Rules: d, Targets: d, Metadata: d, Exemplars: d, Status: d, Query: d}
}

func (d *direct) err(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", d.name, err)
}

func (d *direct) missing(what string) error {
	return d.err(fmt.Errorf("%w: %s", storeapi.ErrUnimplemented, what))
}

// warnings returns warnings with the endpoint's name.
func (d *direct) warnings(list []string) []string {
	named := make([]string, 0, len(list))
	for _, w := range list {
		named = append(named, d.name+": "+w)
	}
	return named
}

func (d *direct) report(r storeapi.Report) storeapi.Report {
	r.Warnings = d.warnings(r.Warnings)
	return r
}

// Info implements storeapi.Store.
func (d *direct) Info(ctx context.Context) (storeapi.Info, error) {
	info, err := d.own.Store.Info(ctx)
	if err != nil {
		return storeapi.Info{}, d.err(err)
	}
	return storeapi.Announced(info, d.own), nil
}

// Series implements storeapi.Store.
func (d *direct) Series(ctx context.Context, sel storeapi.Selection) (storeapi.SeriesSet, error) {
	set, err := d.own.Store.Series(ctx, sel)
	if err != nil {
		return nil, d.err(err)
	}
	return &directSet{SeriesSet: set, direct: d}, nil
}

// directSet is a set whose error and warnings name the endpoint.
type directSet struct {
	storeapi.SeriesSet
	direct *direct
}

func (s *directSet) Err() error              { return s.direct.err(s.SeriesSet.Err()) }
func (s *directSet) Report() storeapi.Report { return s.direct.report(s.SeriesSet.Report()) }

// LabelNames implements storeapi.Store.
func (d *direct) LabelNames(ctx context.Context, sel storeapi.Selection) ([]string, storeapi.Report, error) {
	names, r, err := d.own.Store.LabelNames(ctx, sel)
	return names, d.report(r), d.err(err)
}

// LabelValues implements storeapi.Store.
func (d *direct) LabelValues(ctx context.Context, name string, sel storeapi.Selection) ([]string, storeapi.Report, error) {
	values, r, err := d.own.Store.LabelValues(ctx, name, sel)
	return values, d.report(r), d.err(err)
}

// Rules implements storeapi.RulesSource.
func (d *direct) Rules(ctx context.Context, req storeapi.RulesRequest, partial bool) ([]storeapi.RuleGroup, []string, error) {
	if d.own.Rules == nil {
		return nil, nil, d.missing("rules")
	}
	groups, warnings, err := d.own.Rules.Rules(ctx, req, partial)
	return groups, d.warnings(warnings), d.err(err)
}

// Targets implements storeapi.TargetsSource.
func (d *direct) Targets(ctx context.Context, state storeapi.TargetState, partial bool) (storeapi.Targets, []string, error) {
	if d.own.Targets == nil {
		return storeapi.Targets{}, nil, d.missing("targets")
	}
	targets, warnings, err := d.own.Targets.Targets(ctx, state, partial)
	return targets, d.warnings(warnings), d.err(err)
}

// Metadata implements storeapi.MetadataSource.
func (d *direct) Metadata(ctx context.Context, metric string, limit int, partial bool) (map[string][]storeapi.Metadata, []string, error) {
	if d.own.Metadata == nil {
		return nil, nil, d.missing("metadata")
	}
	list, warnings, err := d.own.Metadata.Metadata(ctx, metric, limit, partial)
	return list, d.warnings(warnings), d.err(err)
}

// Exemplars implements storeapi.ExemplarsSource.
func (d *direct) Exemplars(ctx context.Context, query string, start, end int64, partial bool) ([]storeapi.ExemplarSeries, []string, error) {
	if d.own.Exemplars == nil {
		return nil, nil, d.missing("exemplars")
	}
	series, warnings, err := d.own.Exemplars.Exemplars(ctx, query, start, end, partial)
	return series, d.warnings(warnings), d.err(err)
}

// TSDBStats implements storeapi.StatusSource.
func (d *direct) TSDBStats(ctx context.Context, limit int, partial bool) (map[string]storeapi.TSDBStats, []string, error) {
	if d.own.Status == nil {
		return nil, nil, d.missing("status")
	}
	stats, warnings, err := d.own.Status.TSDBStats(ctx, limit, partial)
	return stats, d.warnings(warnings), d.err(err)
}

// Query implements storeapi.QuerySource.
func (d *direct) Query(ctx context.Context, req storeapi.QueryRequest) (storeapi.QueryResult, error) {
	if d.own.Query == nil {
		return storeapi.QueryResult{}, d.missing("query")
	}
	result, err := d.own.Query.Query(ctx, req)
	result.Warnings = d.warnings(result.Warnings)
	return result, d.err(err)
}

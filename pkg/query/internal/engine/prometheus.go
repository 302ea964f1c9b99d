package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
)

// Prometheus is the engine of the Prometheus module, with its answers.
type Prometheus struct {
	cfg     Config
	ng      *promql.Engine
	parser  parser.Parser
	slots   *slots
	metrics *metrics
}

var _ Engine = (*Prometheus)(nil)

// New makes the engine. It starts nothing; Close closes the active query file.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Prometheus, error) {
	m := newMetrics(reg)
	slots, err := newSlots(cfg, log, m, reg)
	if err != nil {
		return nil, err
	}
	on := func(feature string) bool { return slices.Contains(cfg.Features, feature) }
	for _, f := range cfg.Features {
		if slices.Contains(ignoredFeatures, f) {
			log.Warn("feature is always on or no longer means anything; it can be left out", "flag", "--enable-feature", "feature", f)
		}
	}
	p := newParser(cfg)
	evaluation := time.Duration(cfg.DefaultEvaluation).Milliseconds()
	return &Prometheus{
		cfg:     cfg,
		parser:  p,
		slots:   slots,
		metrics: m,
		ng: promql.NewEngine(promql.EngineOpts{
			Logger:                   log,
			Reg:                      reg,
			MaxSamples:               cfg.MaxSamples,
			Timeout:                  time.Duration(cfg.Timeout),
			ActiveQueryTracker:       slots,
			LookbackDelta:            time.Duration(cfg.LookbackDelta),
			NoStepSubqueryIntervalFn: func(int64) int64 { return evaluation },
			EnableAtModifier:         true,
			EnableNegativeOffset:     true,
			EnablePerStepStats:       true, // costs only those who ask by stats=all
			EnableDelayedNameRemoval: on(featureDelayedNames),
			EnableTypeAndUnitLabels:  on(featureTypeAndUnit),
			UseStartTimestamps:       on(featureStartTimes),
			Parser:                   windowParser{p, on(featureDelayedNames)},
		}),
	}, nil
}

// Close closes the active query file. No query may run any more.
func (p *Prometheus) Close() error {
	if err := p.ng.Close(); err != nil {
		return fmt.Errorf("close query engine: %w", err)
	}
	return nil
}

// Parser returns the parser that Exec uses.
func (p *Prometheus) Parser() parser.Parser { return p.parser }

// Exec evaluates one expression.
func (p *Prometheus) Exec(ctx context.Context, q storage.Queryable, req Request) (*Result, error) {
	l := limits{maxSamples: p.cfg.MaxSamples, timeout: time.Duration(p.cfg.Timeout)}
	if req.Timeout > 0 && req.Timeout < l.timeout {
		l.timeout, l.ofRequest = req.Timeout, true
	}
	bounded, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()

	qry, err := p.newQuery(bounded, q, req)
	if err != nil {
		return nil, p.failed(constructionError(bounded, err, l))
	}
	res := qry.Exec(bounded)
	if res.Err != nil {
		qry.Close()
		return nil, p.failed(classify(bounded, res.Err, l))
	}
	return &Result{Value: res.Value, Annotations: res.Warnings, Stats: qry.Stats(), close: qry.Close}, nil
}

func (p *Prometheus) newQuery(ctx context.Context, q storage.Queryable, req Request) (promql.Query, error) {
	opts := promql.NewPrometheusQueryOpts(req.PerStepStats, p.lookback(req), req.UseStartTimestamps)
	expr, q := p.windowed(q, req)
	if req.Step == 0 {
		return p.ng.NewInstantQuery(ctx, q, opts, expr, req.Start)
	}
	return p.ng.NewRangeQuery(ctx, q, opts, expr, req.Start, req.End, req.Step)
}

// lookback returns the lookback of one request; 0 is the engine's.
func (p *Prometheus) lookback(req Request) time.Duration {
	if req.Lookback > 0 {
		return req.Lookback
	}
	if !p.cfg.DynamicLookback {
		return 0
	}
	return lookbackFor(time.Duration(p.cfg.LookbackDelta), req.MaxResolution)
}

func (p *Prometheus) failed(err *Error) error {
	p.metrics.refused.WithLabelValues(err.Kind.String()).Inc()
	return err
}

// constructionError tells a query whose turn did not come from one that can't be parsed.
func constructionError(ctx context.Context, err error, l limits) *Error {
	var (
		canceled promql.ErrQueryCanceled
		timeout  promql.ErrQueryTimeout
	)
	if errors.As(err, &canceled) || errors.As(err, &timeout) || errors.Is(err, errQueueFull) {
		return classify(ctx, err, l)
	}
	return &Error{BadQuery, err}
}

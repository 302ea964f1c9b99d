package engine

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// Config is what an operator may set of how PromQL is evaluated.
type Config struct {
	Timeout            model.Duration // of one query, waiting included
	MaxConcurrent      int            // queries evaluated at once
	MaxQueued          int            // queries waiting for their turn
	MaxSamples         int            // held in memory at once by one query
	MaxExpressionBytes int            // of one expression or selector

	LookbackDelta     model.Duration
	DynamicLookback   bool           // widen it to what downsampled data needs
	DefaultEvaluation model.Duration // step of a subquery that names none

	ActiveQueryPath string // folder; empty: no file
	Engine          string // "prometheus" or "thanos", which mean the same
	Mode            string // "local" or "distributed", which mean the same
	XFunctions      bool
	Features        []string
}

// Names of engines and modes that are understood.
var (
	engineNames = []string{"prometheus", "thanos"}
	modeNames   = []string{"local", "distributed"}
)

// The features of --enable-feature. Those that are always on, or that never
// mean anything here, are understood so that configurations of Thanos and Prometheus keep working.
const (
	featureExperimental  = "promql-experimental-functions"
	featureDelayedNames  = "promql-delayed-name-removal"
	featureFillModifiers = "promql-binop-fill-modifiers"
	featureUnquotedUTF8  = "promql-unquoted-utf8-names"
	featureStartTimes    = "use-start-timestamps"
	featureTypeAndUnit   = "type-and-unit-labels"
)

var (
	switchedFeatures = []string{
		featureExperimental, featureDelayedNames, featureFillModifiers, featureUnquotedUTF8, featureStartTimes, featureTypeAndUnit,
	}
	ignoredFeatures = []string{
		"promql-per-step-stats", "promql-duration-expr", "promql-extended-range-selectors", // always on
		"promql-at-modifier", "promql-negative-offset", "query-pushdown", "store-pushdown", // without meaning since years
	}
)

// RegisterFlags sets the defaults and makes flags of them.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	c.Timeout = model.Duration(2 * time.Minute)
	fs.Var(&c.Timeout, "query.timeout", "Longest time a query may take, waiting for its turn included. A request can ask for less, never for more.")
	fs.IntVar(&c.MaxConcurrent, "query.max-concurrent", 20, "Queries evaluated at once; others wait, for at most --query.timeout.")
	fs.IntVar(&c.MaxQueued, "query.max-queued", 1000, "Queries that may wait for their turn; more are refused at once. 0: none.")
	fs.IntVar(&c.MaxSamples, "query.max-samples", 50_000_000, "Samples that one query may hold in memory at once. Queries that need more fail.")
	fs.IntVar(&c.MaxExpressionBytes, "query.max-expression-bytes", 1<<20, "Longest PromQL expression or series selector, in bytes.")
	c.LookbackDelta = model.Duration(5 * time.Minute)
	fs.Var(&c.LookbackDelta, "query.lookback-delta", "How far back an instant selector looks for a series' last sample.")
	fs.BoolVar(&c.DynamicLookback, "query.dynamic-lookback-delta", true, "Widen the lookback to 5m or 1h where a query may read data of that resolution.")
	c.DefaultEvaluation = model.Duration(time.Minute)
	fs.Var(&c.DefaultEvaluation, "query.default-evaluation-interval", "Step of subqueries that name none.")
	fs.StringVar(&c.ActiveQueryPath, "query.active-query-path", "", "Folder for the file queries.active, from which the queries running at a crash are logged at the next start. Empty: no such file.")
	fs.StringVar(&c.Engine, "query.promql-engine", "prometheus", "Accepted for compatibility: prometheus or thanos, both mean the engine of Prometheus.")
	fs.StringVar(&c.Mode, "query.mode", "local", "Accepted for compatibility: local or distributed, both evaluate here over all endpoints.")
	fs.BoolVar(&c.XFunctions, "query.enable-x-functions", false, "Not supported (xrate, xincrease, xdelta): use the range selector modifiers anchored and smoothed of Prometheus 3.")
	fs.Func("enable-feature", "PromQL features to enable, comma-separated or repeated: "+strings.Join(switchedFeatures, ", ")+".", func(s string) error {
		c.Features = append(c.Features, strings.Split(s, ",")...)
		return nil
	})
}

// Validate says everything that is wrong with the configuration.
func (c *Config) Validate() error {
	var errs []error
	positive := func(name string, ok bool) {
		if !ok {
			errs = append(errs, fmt.Errorf("--%s: must be above 0", name))
		}
	}
	positive("query.timeout", c.Timeout > 0)
	positive("query.max-concurrent", c.MaxConcurrent > 0)
	if c.MaxQueued < 0 {
		errs = append(errs, errors.New("--query.max-queued: must not be below 0"))
	}
	positive("query.max-samples", c.MaxSamples > 0)
	positive("query.max-expression-bytes", c.MaxExpressionBytes > 0)
	positive("query.lookback-delta", c.LookbackDelta > 0)
	positive("query.default-evaluation-interval", c.DefaultEvaluation > 0)
	if !slices.Contains(engineNames, c.Engine) {
		errs = append(errs, fmt.Errorf("--query.promql-engine: unknown engine %q, must be one of %s", c.Engine, strings.Join(engineNames, ", ")))
	}
	if !slices.Contains(modeNames, c.Mode) {
		errs = append(errs, fmt.Errorf("--query.mode: unknown mode %q, must be one of %s", c.Mode, strings.Join(modeNames, ", ")))
	}
	if c.XFunctions {
		errs = append(errs, errors.New("--query.enable-x-functions: xrate, xincrease and xdelta are not supported; use the range selector modifiers anchored and smoothed"))
	}
	for _, f := range c.Features {
		if f != "" && !slices.Contains(switchedFeatures, f) && !slices.Contains(ignoredFeatures, f) {
			errs = append(errs, fmt.Errorf("--enable-feature: unknown feature %q, must be one of %s", f, strings.Join(switchedFeatures, ", ")))
		}
	}
	return errors.Join(errs...)
}

// CheckEngineName accepts the names by which clients ask for an engine.
func CheckEngineName(name string) error {
	if name != "" && !slices.Contains(engineNames, name) {
		return fmt.Errorf("unknown engine %q, must be one of %s", name, strings.Join(engineNames, ", "))
	}
	return nil
}

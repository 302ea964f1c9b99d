package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/tools"
)

// queryTools are the verbs of firnline tools query.
func queryTools() toolGroup {
	return toolGroup{name: "query", short: "Ask a querier, or Prometheus", tools: []*tool{newQueryInstant(), newQueryRange()}}
}

// endpointFlags say whom to ask.
type endpointFlags struct {
	tools.Endpoint
	timeout model.Duration
}

// RegisterFlags implements configurer.
func (e *endpointFlags) RegisterFlags(fs *flag.FlagSet) {
	e.Headers = map[string]string{}
	e.timeout = model.Duration(2 * time.Minute)
	fs.StringVar(&e.URL, "url", "http://localhost:10902", "The server's address: a querier's, or that of anything with Prometheus' HTTP API.")
	fs.Func("header", "Header to send, such as THANOS-TENANT=team-a. Repeatable.", func(s string) error {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return fmt.Errorf("%q: want NAME=VALUE", s)
		}
		e.Headers[name] = value
		return nil
	})
	fs.Var(&e.timeout, "timeout", "How long to wait for an answer.")
}

// Validate implements configurer.
func (e *endpointFlags) Validate() error { return checkURL("url", e.URL) }

func checkURL(name, s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("--%s: %q: want an address such as http://localhost:10902", name, s)
	}
	return nil
}

// oneQuery wants a query as the only argument.
func oneQuery(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError{fmt.Errorf("want one argument, the query, in quotes; got %d", len(args))}
	}
	return nil
}

// reached makes the exit code of an endpoint's error.
func reached(err error) error {
	if errors.Is(err, tools.ErrUnreachable) {
		return unreachableError{err}
	}
	return err
}

func newQueryInstant() *tool {
	var to endpointFlags
	var out outputConfig
	var at block.TimeBound
	when := oneFlag(func(fs *flag.FlagSet) {
		fs.Var(&at, "time", "When: a time (2026-01-31T00:00:00Z) or a duration back from now (-1h). Default: now.")
	})
	return &tool{
		use: "instant QUERY", short: "Evaluate a query at one moment",
		long:    `Evaluate a PromQL query at one moment and print its series, a line each.`,
		example: `  firnline tools query instant 'sum by (job) (up)' --url=http://localhost:10902`,
		args:    oneQuery,
		parts:   []configurer{&to, when, &out},
		run: func(ctx context.Context, r *toolRun, args []string) error {
			ctx, cancel := context.WithTimeout(ctx, time.Duration(to.timeout))
			defer cancel()
			now := time.Now()
			a, err := to.Instant(ctx, args[0], time.UnixMilli(at.Millis(now, now.UnixMilli())))
			if err != nil {
				return reached(err)
			}
			r.warn(a.Warnings)
			return out.print(r.out, a.Value, func(w io.Writer) error { return valueTable(a.Value).write(w, true) })
		},
	}
}

// warn passes a server's warnings on.
func (r *toolRun) warn(warnings []string) {
	for _, w := range warnings {
		fmt.Fprintln(r.talk, "warning:", w)
	}
}

// valueTable shows what a query came to.
func valueTable(v model.Value) *table {
	switch v := v.(type) {
	case *model.Scalar:
		t := &table{columns: columnsOf("value", "time")}
		t.add(v.Value.String(), shortTime(v.Timestamp.Time()))
		return t
	case *model.String:
		t := &table{columns: columnsOf("value", "time")}
		t.add(v.Value, shortTime(v.Timestamp.Time()))
		return t
	case model.Vector:
		t := &table{columns: columnsOf("series", "value", "time")}
		for _, s := range v {
			value := s.Value.String()
			if s.Histogram != nil {
				value = s.Histogram.String()
			}
			t.add(s.Metric.String(), value, shortTime(s.Timestamp.Time()))
		}
		return t
	case model.Matrix:
		t := &table{columns: columnsOf("series", "time", "value")}
		for _, s := range v {
			for _, p := range s.Values {
				t.add(s.Metric.String(), p.Timestamp.Time().UTC().Format("2006-01-02T15:04:05.000Z"), p.Value.String())
			}
			for _, p := range s.Histograms {
				t.add(s.Metric.String(), p.Timestamp.Time().UTC().Format("2006-01-02T15:04:05.000Z"), p.Histogram.String())
			}
		}
		return t
	}
	return &table{}
}

// rangeFlags are the times of a range query, and the size of its plot.
type rangeFlags struct {
	start, end    block.TimeBound
	step          model.Duration
	width, height int
	values        bool
}

// RegisterFlags implements configurer.
func (q *rangeFlags) RegisterFlags(fs *flag.FlagSet) {
	fs.Var(&q.start, "start", "From when: a time or a duration back from now. Default: an hour ago.")
	fs.Var(&q.end, "end", "Until when. Default: now.")
	fs.Var(&q.step, "step", "Between two values. Default: a value for each column of the plot.")
	fs.IntVar(&q.width, "width", 80, "Columns of the plot.")
	fs.IntVar(&q.height, "height", 16, "Lines of the plot.")
	fs.BoolVar(&q.values, "values", false, "Print values in place of a plot.")
}

// Validate implements configurer.
func (q *rangeFlags) Validate() error {
	var errs []error
	if q.width < 20 || q.width > 1000 {
		errs = append(errs, fmt.Errorf("--width=%d: give 20 to 1000", q.width))
	}
	if q.height < 2 || q.height > 200 {
		errs = append(errs, fmt.Errorf("--height=%d: give 2 to 200", q.height))
	}
	if r := q.at(time.Now()); !r.Start.Before(r.End) {
		errs = append(errs, errors.New("--start is not before --end"))
	}
	return errors.Join(errs...)
}

// at is the range that is asked for at the moment now.
func (q *rangeFlags) at(now time.Time) v1.Range {
	r := v1.Range{
		Start: time.UnixMilli(q.start.Millis(now, now.Add(-time.Hour).UnixMilli())), End: time.UnixMilli(q.end.Millis(now, now.UnixMilli())),
		Step: time.Duration(q.step),
	}
	if r.Step == 0 {
		r.Step = max(r.End.Sub(r.Start)/time.Duration(q.width), time.Second).Round(time.Second)
	}
	return r
}

func newQueryRange() *tool {
	var to endpointFlags
	var out outputConfig
	var q rangeFlags
	return &tool{
		use: "range QUERY", short: "Evaluate a query over time, and plot it",
		long:    `Evaluate a PromQL query over time and plot its series with letters, or print its values.`,
		example: `  firnline tools query range 'rate(http_requests_total[5m])' --start=-6h --url=http://localhost:10902`,
		args:    oneQuery,
		parts:   []configurer{&to, &q, &out},
		run: func(ctx context.Context, r *toolRun, args []string) error {
			ctx, cancel := context.WithTimeout(ctx, time.Duration(to.timeout))
			defer cancel()
			a, err := to.Range(ctx, args[0], q.at(time.Now()))
			if err != nil {
				return reached(err)
			}
			r.warn(a.Warnings)
			return out.print(r.out, a.Value, func(w io.Writer) error {
				if q.values {
					return valueTable(a.Value).write(w, true)
				}
				_, err := io.WriteString(w, tools.Plot(linesOf(a.Value), q.width, q.height))
				return err
			})
		},
	}
}

// linesOf are the series of a matrix.
func linesOf(v model.Value) []tools.Line {
	m, _ := v.(model.Matrix)
	var out []tools.Line
	for _, s := range m {
		l := tools.Line{Name: s.Metric.String()}
		for _, p := range s.Values {
			l.Times = append(l.Times, p.Timestamp.Time())
			l.Values = append(l.Values, float64(p.Value))
		}
		out = append(out, l)
	}
	return out
}

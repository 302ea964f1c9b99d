package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/model"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/tools/prove"
)

// proveFlags say what is written, and what is read back.
type proveFlags struct {
	prove.Config
	write, metrics          string
	interval, check, settle model.Duration
	duration                model.Duration
	windows                 []string
	since                   block.TimeBound
}

// RegisterFlags implements configurer.
func (p *proveFlags) RegisterFlags(fs *flag.FlagSet) {
	p.interval, p.check, p.settle = model.Duration(15*time.Second), model.Duration(time.Minute), model.Duration(30*time.Second)
	fs.StringVar(&p.write, "write.url", "http://localhost:10902/api/v1/receive", "Address of remote write.")
	fs.StringVar(&p.ID, "prove.id", "default", "Label id of the series: one for each prover, the same over restarts.")
	fs.IntVar(&p.Series, "prove.series", 10, "Series of each of the two metrics.")
	fs.Var(&p.interval, "prove.interval", "Time between samples.")
	fs.Var(&p.check, "prove.check-interval", "Time between checks.")
	fs.Func("prove.window", "Window that is read back, such as 1d. Repeatable. Default: 5m, 1h, 6h and 1d. Keep it below the retention of raw samples.", func(s string) error {
		p.windows = append(p.windows, s)
		return nil
	})
	fs.Var(&p.settle, "prove.settle", "How long after it was taken a sample must show.")
	fs.Var(&p.since, "prove.since", "When samples of this id were first written without a hole: from then on each is expected. Default: when this process began.")
	fs.Var(&p.duration, "prove.duration", "End after this, with exit code 1 if anything was wrong. Default: go on until stopped.")
	fs.IntVar(&p.Pending, "prove.max-pending", 1000, "Times that wait for a store that takes nothing; what comes over it is not written.")
	fs.StringVar(&p.metrics, "http-address", "", "Address on which /metrics is served. Default: none.")
}

// Validate implements configurer.
func (p *proveFlags) Validate() error {
	errs := []error{checkURL("write.url", p.write)}
	if len(p.windows) == 0 {
		p.windows = []string{"5m", "1h", "6h", "1d"}
	}
	p.Windows = nil
	for _, w := range p.windows {
		d, err := model.ParseDuration(w)
		if err != nil || d <= 0 {
			errs = append(errs, fmt.Errorf("--prove.window=%q: want a duration such as 1d", w))
		}
		p.Windows = append(p.Windows, time.Duration(d))
	}
	slices.Sort(p.Windows)
	if p.interval < model.Duration(time.Second) || time.Duration(p.interval)%time.Second != 0 {
		errs = append(errs, fmt.Errorf("--prove.interval=%s: give whole seconds", p.interval))
	}
	if p.Series < 1 || p.Pending < 1 || p.check <= 0 {
		errs = append(errs, errors.New("--prove.series, --prove.max-pending, --prove.check-interval: give more than 0"))
	}
	p.Interval, p.Check, p.Settle, p.Duration = time.Duration(p.interval), time.Duration(p.check), time.Duration(p.settle), time.Duration(p.duration)
	if ms := p.since.Millis(time.Now(), 0); ms > 0 {
		p.Since = time.UnixMilli(ms)
	}
	return errors.Join(errs...)
}

func newProve() *tool {
	var what proveFlags
	var to endpointFlags
	return &tool{
		use: "prove", short: "Write known series for ever, and compare what is read back",
		long: `Write series whose values are a known function of time by remote write, read them back
over windows of all lengths, sample by sample and by range queries, and tell of each
sample that is missing, wrong, or there without having been written. It runs until it
is stopped, or for --prove.duration, and ends with exit code 1 if anything was wrong,
3 if nothing could be written or read at all. Its metrics are on --http-address:
alert on firnline_prove_mismatches_total.`,
		example: `  firnline tools prove --write.url=http://localhost:10902/api/v1/receive --url=http://localhost:10902 --prove.duration=10m`,
		parts:   []configurer{&what, &to},
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			read, err := to.API()
			if err != nil {
				return err
			}
			store, err := prove.NewHTTP(what.write, read, to.Client(time.Duration(to.timeout)))
			if err != nil {
				return err
			}
			stop, err := r.serveMetrics(ctx, what.metrics)
			if err != nil {
				return err
			}
			defer stop()
			res, err := prove.New(what.Config, store, r.log, r.reg).Run(ctx)
			fmt.Fprintf(r.out, "%d times written, %d checks, %d mismatches; %s and %s failed and were tried again.\n",
				res.Written, res.Checks, res.Mismatches, counted(res.WriteFailures, "write"), counted(res.CheckFailures, "check"))
			if err == nil && (res.Written == 0 && res.WriteFailures > 0 || res.Checks == 0 && res.CheckFailures > 0) {
				return unreachableError{errors.New("the store could not be written to or not be read, so that nothing is proven; the log says why")}
			}
			return err
		},
	}
}

// serveMetrics serves the tool's own metrics until stop is called. No address: nowhere.
func (r *toolRun) serveMetrics(ctx context.Context, addr string) (stop func(), err error) {
	if addr == "" {
		return func() {}, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--http-address: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(r.reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			r.log.Error("metrics are not served any more", "err", err)
		}
	}()
	return func() { srv.Close(); <-ended }, nil
}

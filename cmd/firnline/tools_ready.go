package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/prometheus/common/model"
)

func newReady() *tool {
	var to endpointFlags
	var wait model.Duration
	flags := oneFlag(func(fs *flag.FlagSet) {
		fs.Var(&wait, "wait", "How long to ask again and again until it is ready. 0s: ask once.")
	})
	return &tool{
		use: "ready", short: "Ask a component whether it is ready to work",
		long: `Ask a component, or Prometheus, whether it is ready, as a health check where there is
no shell: for containers, and for scripts that wait for a start. Exit code 0 says
yes, 1 no, with what it waits for, and 3 that nobody answered. On loopback, where
nobody else can answer, certificates are not checked.`,
		example: `  firnline tools ready
  firnline tools ready --url=https://store:10902 --wait=5m`,
		parts: []configurer{&to, flags},
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			var err error
			if wait > 0 {
				err = to.WaitReady(ctx, time.Duration(wait))
			} else {
				ctx, cancel := context.WithTimeout(ctx, time.Duration(to.timeout))
				defer cancel()
				err = to.Ready(ctx)
			}
			if err == nil {
				fmt.Fprintln(r.out, "ready")
			}
			return reached(err)
		},
	}
}

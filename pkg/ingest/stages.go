package ingest

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
)

// job works until its context is done. nil before that means: nothing more to do.
type job func(context.Context) error

// runStages runs all jobs of all stages at once. When ctx is done, or a job
// fails, it stops the stages one after the other, each when the one before has ended.
func runStages(ctx context.Context, stages [][]job) error {
	ctx, failed := context.WithCancel(ctx)
	defer failed()
	groups := make([]errgroup.Group, len(stages))
	stops := make([]context.CancelFunc, len(stages))
	for i, jobs := range stages {
		var own context.Context
		own, stops[i] = context.WithCancel(context.WithoutCancel(ctx))
		defer stops[i]()
		for _, j := range jobs {
			groups[i].Go(func() error {
				err := j(own)
				if err != nil {
					failed()
				}
				return err
			})
		}
	}
	<-ctx.Done()
	var errs []error
	for i := range stages {
		stops[i]()
		errs = append(errs, groups[i].Wait())
	}
	return errors.Join(errs...)
}

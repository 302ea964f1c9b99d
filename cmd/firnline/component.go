package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"
)

// component is a command that runs until it is told to stop.
type component struct {
	name, short, long, example string

	base     base         // what every component has
	parts    []configurer // what this one has beside
	everyday []string     // flags that --help shows, where nearly all would be too many; nil: all but rare ones
	// derive sets flags that were left to their defaults by what others say; nil: none.
	derive func(f *flags) error
	// build makes the component's parts on a process and returns what to run.
	build func(ctx context.Context, p *process) ([]runner, error)
}

// runner is a part that works until its context ends.
type runner interface {
	Run(ctx context.Context) error
}

// all lists the component's whole configuration.
func (c *component) all() []configurer { return append(c.base.parts(), c.parts...) }

// command makes the command line of a component.
func (c *component) command() *cobra.Command {
	f := newFlags(c.all())
	f.everyday = c.everyday
	cmd := &cobra.Command{Use: c.name, Short: c.short, Long: c.long, Example: c.example, Args: noArgs}
	f.attach(cmd.Flags())
	helpAll := cmd.Flags().Bool("help-all", false, "Help with all flags, those rarely needed too")
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(cmd.OutOrStdout(), cmd, f, *helpAll) })
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *helpAll {
			return cmd.Help()
		}
		if err := c.configure(f); err != nil {
			return usageError{err}
		}
		ctx, stop := untilSignal(cmd.Context())
		defer stop()
		return c.run(ctx, f, cmd.ErrOrStderr())
	}
	return cmd
}

// configure fills in what the command line has left, and lists everything that is wrong.
func (c *component) configure(f *flags) error {
	errs := []error{f.resolve(os.LookupEnv)}
	if c.derive != nil {
		errs = append(errs, c.derive(f))
	}
	return errors.Join(append(errs, validate(c.all()))...)
}

// validate lists everything that is wrong in any part of the configuration.
func validate(parts []configurer) error {
	var errs []error
	for _, p := range parts {
		errs = append(errs, p.Validate())
	}
	return errors.Join(errs...)
}

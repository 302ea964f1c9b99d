package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/firnline/firnline/pkg/bucket"
)

// toolGroups lists the nouns of `firnline tools`, each with its verbs.
func toolGroups() []toolGroup {
	return []toolGroup{
		bucketTools(), blockTools(), compactTools(), deleteTools(), rulesTools(), queryTools(), importTools(),
		{tools: []*tool{newAnalyze(), newExport(), newProve(), newReady(), newRulesCheck("rules-check")}},
	}
}

// toolGroup is a noun of `firnline tools`: firnline tools <noun> <verb>. Tools of
// the group without a name stand below tools themselves.
type toolGroup struct {
	name, short string
	tools       []*tool
}

// tool is a command that an operator runs by hand: it does one thing and ends.
// Data goes to stdout, talk to stderr.
type tool struct {
	use                  string   // the verb and its arguments, such as "cancel ID"
	aliases              []string // other names of the verb
	short, long, example string
	args                 cobra.PositionalArgs // nil: takes none

	log   logConfig
	parts []configurer // what this one has beside the log
	run   func(ctx context.Context, r *toolRun, args []string) error
}

// toolRun is what a tool has to work with.
type toolRun struct {
	out, talk io.Writer
	in        io.Reader // an operator's answers
	board     *board    // what talk is, for lines that are drawn anew
	log       *slog.Logger
	reg       *prometheus.Registry
}

// newTools makes the command group of all tools.
func newTools() *cobra.Command {
	tools := newGroup("tools", "What an operator does by hand")
	for _, g := range toolGroups() {
		noun := tools
		if g.name != "" {
			noun = newGroup(g.name, g.short)
			tools.AddCommand(noun)
		}
		for _, t := range g.tools {
			noun.AddCommand(t.command())
		}
	}
	tools.AddCommand(newConfigTools())
	return tools
}

// newGroup makes a command that only has others below it.
func newGroup(name, short string) *cobra.Command {
	return &cobra.Command{Use: name, Short: short, Long: short + ".", Args: cobra.ArbitraryArgs, RunE: helpOrUnknown}
}

// path is how a tool of the group is called.
func (g toolGroup) path(t *tool) string {
	return strings.Join(strings.Fields("tools "+g.name+" "+t.use), " ")
}

// all lists the tool's whole configuration.
func (t *tool) all() []configurer { return append([]configurer{&t.log}, t.parts...) }

// command makes the command line of a tool.
func (t *tool) command() *cobra.Command {
	f := newFlags(t.all())
	cmd := &cobra.Command{Use: t.use, Aliases: t.aliases, Short: t.short, Long: t.long, Example: t.example, Args: t.args}
	if t.args == nil {
		cmd.Args = noArgs
	}
	f.attach(cmd.Flags())
	helpAll := cmd.Flags().Bool("help-all", false, "Help with all flags, those rarely needed too")
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(cmd.OutOrStdout(), cmd, f, *helpAll) })
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *helpAll {
			return cmd.Help()
		}
		if err := f.resolve(os.LookupEnv); err != nil {
			return usageError{errors.Join(err, validate(t.all()))}
		}
		if err := validate(t.all()); err != nil {
			return usageError{err}
		}
		ctx, stop := untilSignal(cmd.Context())
		defer stop()
		r := &toolRun{out: cmd.OutOrStdout(), talk: cmd.ErrOrStderr(), in: cmd.InOrStdin(), reg: prometheus.NewRegistry()}
		r.board = newBoard(r.talk)
		r.log = newLogger(t.log, r.board)
		f.warn(r.log)
		return t.run(ctx, r, args)
	}
	return cmd
}

// open makes the bucket that a tool works on. A folder that isn't there is a
// mistake here, where a component would make it.
func (r *toolRun) open(ctx context.Context, c *bucketConfig) (*bucket.Handle, error) {
	if err := c.folderMissing(); err != nil {
		return nil, unreachableError{err}
	}
	return bucket.Open(ctx, c.Config, bucket.Parts{Log: r.log, Metrics: r.reg})
}

// unreachableError is that of something which a tool could not reach.
type unreachableError struct{ error }

// Unwrap returns what was in the way.
func (e unreachableError) Unwrap() error { return e.error }

// explained words an error of work on a bucket for an operator. One that says
// the bucket could not be used becomes an unreachableError.
func explained(b *bucket.Handle, err error) error {
	var why *bucket.Explanation
	if errors.As(err, new(unreachableError)) { // of another bucket
		return err
	}
	if !errors.As(b.Explain(err), &why) || why.Cause == bucket.CauseOther {
		return err
	}
	return unreachableError{why}
}

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/prometheus/common/version"
	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK          = 0
	exitProblem     = 1
	exitUsage       = 2
	exitUnreachable = 3
)

// usageError is a mistake on the command line or in the configuration.
type usageError struct{ error }

// Unwrap returns what is wrong.
func (e usageError) Unwrap() error { return e.error }

// execute runs the command line and returns the exit code. Errors go to stderr,
// one problem a line.
func execute(args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	root.SetOut(stdout)
	root.SetErr(stderr)
	ran, err := root.ExecuteC()
	if err == nil {
		return exitOK
	}
	problems := strings.Split(err.Error(), "\n")
	if len(problems) == 1 {
		fmt.Fprintf(stderr, "%s: error: %s\n", root.Name(), problems[0])
	} else {
		fmt.Fprintf(stderr, "%s: %d problems:\n  %s\n", root.Name(), len(problems), strings.Join(problems, "\n  "))
	}
	if errors.As(err, new(unreachableError)) {
		return exitUnreachable
	}
	if !errors.As(err, new(usageError)) {
		return exitProblem
	}
	fmt.Fprintf(stderr, "Run %s --help for usage.\n", ran.CommandPath())
	return exitUsage
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "firnline",
		Short: "A horizontally scalable long-term store for Prometheus metrics",
		Long: `A horizontally scalable long-term store for Prometheus metrics.

Every component is a command of this binary. Each prints its own flags with --help.`,
		Version:       version.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs, // so that unknown commands come to RunE
	}
	root.SetVersionTemplate(version.Print("firnline") + "\n")
	root.AddCommand(newVersion())
	for _, c := range components() {
		root.AddCommand(c.command())
	}
	root.AddCommand(newTools())
	root.RunE = helpOrUnknown
	root.SetFlagErrorFunc(flagError)
	if root.Version == "" {
		root.Version = "unknown" // cobra offers --version only with one
	}
	return root
}

// helpOrUnknown is what a command does that only has others below it: help, or
// say that there is none of the name that was written.
func helpOrUnknown(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	return usageError{fmt.Errorf("unknown command %q%s", args[0], didYouMean("", args[0], names))}
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, revision, Go version, platform and build tags",
		Args:  noArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), version.Print("firnline")) },
	}
}

// noArgs refuses words that are neither a flag nor a flag's value.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q: flags begin with --, their values follow after =", args[0])}
	}
	return nil
}

package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
)

// confirmConfig says whether a tool that destroys may do so. Without --yes it
// shows what it would do and, on a terminal, asks.
type confirmConfig struct{ yes, dryRun bool }

// RegisterFlags implements configurer.
func (c *confirmConfig) RegisterFlags(fs *flag.FlagSet) {
	fs.BoolVar(&c.yes, "yes", false, "Do it, without a question.")
	fs.BoolVar(&c.dryRun, "dry-run", false, "Only show what would be done, and don't ask.")
}

// Validate implements configurer.
func (c *confirmConfig) Validate() error {
	if c.yes && c.dryRun {
		return errors.New("--dry-run, --yes: give one of them")
	}
	return nil
}

// allows tells whether it is to be done, after what would be done was shown.
func (c *confirmConfig) allows(r *toolRun, what string) (bool, error) {
	if c.yes || c.dryRun {
		if c.dryRun {
			fmt.Fprintln(r.talk, "Nothing was done. Give --yes to do it.")
		}
		return c.yes, nil
	}
	in, ok := r.in.(*os.File)
	if !ok || !isTerminal(in) || !isTerminal(r.talk) {
		return false, usageError{errors.New("nothing was done: give --yes to do it, or --dry-run to be shown this and no more")}
	}
	fmt.Fprintf(r.talk, "%s? [y/N] ", what)
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a == "y" || a == "yes" {
		return true, nil
	}
	fmt.Fprintln(r.talk, "Nothing was done.")
	return false, nil
}

package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagError turns what the flag parser says into a usage error, with a
// suggestion where a flag is not known.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usageError{err}
	}
	if written := cmd.Flags().Args(); cmd.HasSubCommands() && len(written) > 0 { // what came before the flag is no command
		return helpOrUnknown(cmd, written)
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	name := unknown.GetSpecifiedName()
	if short := unknown.GetSpecifiedShortnames(); short != "" {
		name = short // --flag written with one dash
	}
	return usageError{fmt.Errorf("%w%s", err, didYouMean("--", name, names))}
}

// didYouMean proposes the names that are what was written with a component's
// name before it, else the name nearest to it, if one is near.
func didYouMean(prefix, written string, names []string) string {
	var longer []string
	for _, n := range names {
		if written != "" && strings.HasSuffix(n, "."+written) {
			longer = append(longer, strconv.Quote(prefix+n))
		}
	}
	if len(longer) > 0 {
		return "; did you mean " + strings.Join(longer, " or ") + "?"
	}
	best, nearest := "", len(written)/3+2
	for _, n := range names {
		if d := distance(written, n); d < nearest {
			best, nearest = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", prefix+best)
}

// distance counts the letters to insert, remove or replace to make b of a;
// a difference in case, or between . - and _, is none.
func distance(a, b string) int {
	same := strings.NewReplacer("-", ".", "_", ".")
	a, b = same.Replace(strings.ToLower(a)), same.Replace(strings.ToLower(b))
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

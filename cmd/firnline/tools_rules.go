package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/firnline/firnline/pkg/tools"
)

// rulesTools are the verbs of firnline tools rules.
func rulesTools() toolGroup {
	return toolGroup{name: "rules", short: "Work on files of rules", tools: []*tool{newRulesCheck("check [FILE…]")}}
}

func newRulesCheck(use string) *tool {
	var patterns []string
	var out outputConfig
	files := oneFlag(func(fs *flag.FlagSet) {
		fs.Func("rules", "File of rules; it may be a pattern, such as rules/*.yml. Repeatable.", func(s string) error {
			patterns = append(patterns, s)
			return nil
		})
	})
	return &tool{
		use: use, short: "Check files of Prometheus' rules",
		long: `Check files of recording and alerting rules: YAML, unknown keys, PromQL, templates,
and rules that write the same series. Thanos' partial_response_strategy is known.`,
		example: `  firnline tools rules check rules/*.yml
  firnline tools rules-check --rules='rules/*.yml'`,
		args:  cobra.ArbitraryArgs,
		parts: []configurer{files, &out},
		run: func(_ context.Context, r *toolRun, args []string) error {
			paths := args
			for _, p := range patterns {
				found, err := filepath.Glob(p)
				if err != nil || len(found) == 0 {
					return usageError{fmt.Errorf("--rules: %q: no such file", p)}
				}
				paths = append(paths, found...)
			}
			if len(paths) == 0 {
				return usageError{errors.New("--rules: give a file of rules, or write it behind the command")}
			}
			return tellRules(r, paths, &out)
		},
	}
}

// tellRules checks files and prints what is wrong with them.
func tellRules(r *toolRun, paths []string, out *outputConfig) error {
	all, bad := []tools.RuleFile{}, 0
	t := &table{columns: columnsOf("file", "groups", "recording", "alerting", "errors")}
	for _, p := range paths {
		f := tools.CheckRules(p)
		all = append(all, f)
		bad += len(f.Errors)
		t.add(f.Path, strconv.Itoa(f.Groups), strconv.Itoa(f.Recording), strconv.Itoa(f.Alerting), strconv.Itoa(len(f.Errors)))
		for _, e := range f.Errors {
			fmt.Fprintln(r.talk, e)
		}
	}
	if err := out.print(r.out, all, func(w io.Writer) error { return t.write(w, true) }); err != nil {
		return err
	}
	return errProblems(bad, "error")
}

package main

import (
	"fmt"
	"io"
	"strings"
)

// writeReference writes the flags of all components and tools as Markdown, for docs/reference/flags.md.
func writeReference(w io.Writer, all []*component, groups []toolGroup) {
	fmt.Fprint(w, `# Flags

Generated from the flags themselves by `+"`go test ./cmd/firnline -update`"+`: don't edit.

A value comes from the command line, else from the environment, else from the YAML file that
`+"`--config.file`"+` names (a mapping of flag names, without dashes, to values), else it is the default.
Repeatable flags take one value a line in the environment, and a list in the file. Booleans are
switched off by `+"`--no-NAME`"+` or `+"`--NAME=false`"+`.
`)
	for _, c := range all {
		writeFlags(w, "firnline "+c.name, c.long, newFlags(c.all()))
	}
	for _, g := range groups {
		for _, t := range g.tools {
			writeFlags(w, "firnline "+g.path(t), t.long, newFlags(t.all()))
		}
	}
	writeThanosFlags(w)
}

// writeFlags writes the flags of one command.
func writeFlags(w io.Writer, command, long string, f *flags) {
	fmt.Fprintf(w, "\n## %s\n\n%s\n", command, long)
	for _, topic := range topics() {
		shown := flagsOf(f, topic)
		if len(shown) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n### %s\n\n| flag | meaning | environment |\n|---|---|---|\n", topic)
		for _, fl := range shown {
			fmt.Fprintf(w, "| `%s` | %s | `%s` |\n", spelling(fl), cell(usage(fl)), envName(fl.Name))
		}
	}
}

// writeThanosFlags lists the flags of Thanos that are taken but do nothing, and those refused.
func writeThanosFlags(w io.Writer) {
	fmt.Fprint(w, "\n## Flags of Thanos without effect\n\nThey are accepted with a warning at the start.\n\n| flag | why |\n|---|---|\n")
	for _, i := range ignored() {
		fmt.Fprintf(w, "| `--%s` | %s |\n", i.name, cell(i.why))
	}
	fmt.Fprint(w, "\n## Flags of Thanos that have another place\n\nThey are refused at the start.\n\n| flag | instead |\n|---|---|\n")
	for _, e := range elsewhere() {
		fmt.Fprintf(w, "| `--%s` | %s |\n", e.name, cell(e.why))
	}
}

// cell makes text fit a cell of a table.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "<", "&lt;", "\n", " ").Replace(s)
}

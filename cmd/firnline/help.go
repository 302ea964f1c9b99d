package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

const helpWidth = 100

// writeHelp prints a component's help: flags by topic, each with its default and
// environment variable; rare ones only when all is set.
func writeHelp(w io.Writer, cmd *cobra.Command, f *flags, all bool) {
	line := strings.TrimSuffix(cmd.UseLine(), " [flags]")
	fmt.Fprintf(w, "%s\n\nUsage:\n  %s [flags]\n\nExamples:\n%s\n", cmd.Long, line, cmd.Example)
	hidden := 0
	for _, topic := range topics() {
		shown := flagsOf(f, topic)
		if !all {
			n := len(shown)
			shown = common(f, shown)
			hidden += n - len(shown)
		}
		if len(shown) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s:\n", topic)
		for _, fl := range shown {
			fmt.Fprintf(w, "  %s\n", spelling(fl))
			for _, line := range wrap(usage(fl)+" ["+envName(fl.Name)+"]", helpWidth-8) {
				fmt.Fprintf(w, "        %s\n", line)
			}
		}
	}
	fmt.Fprintf(w, "\nEvery flag can be set by its environment variable, too, or in the file that --%s names.\n", configFlag)
	if hidden > 0 {
		fmt.Fprintf(w, "%d flags that are rarely needed are listed by --help-all.\n", hidden)
	}
}

// flagsOf lists the flags of a topic by name, without those that only say what took their place.
func flagsOf(f *flags, topic string) []*flag.Flag {
	var out []*flag.Flag
	f.set.VisitAll(func(fl *flag.Flag) {
		if topicOf(fl.Name) == topic && !strings.HasPrefix(fl.Usage, "Removed:") {
			out = append(out, fl)
		}
	})
	return out
}

// common leaves out the flags that only --help-all shows.
func common(f *flags, all []*flag.Flag) []*flag.Flag {
	var out []*flag.Flag
	for _, fl := range all {
		if f.everyday == nil && !rare(fl.Name) || slices.Contains(f.everyday, fl.Name) {
			out = append(out, fl)
		}
	}
	return out
}

// spelling is how a flag is written: its default after =, or what it takes when there is none.
func spelling(fl *flag.Flag) string {
	switch {
	case fl.Name == outputFlag:
		return "-o, --" + fl.Name + "=" + fl.DefValue
	case isBool(fl.Value) && fl.DefValue == "true":
		return "--[no-]" + fl.Name + " (on unless switched off)"
	case isBool(fl.Value):
		return "--[no-]" + fl.Name
	case fl.DefValue == "" || fl.DefValue == "[]": // an empty list, as some print it
		return "--" + fl.Name + "=<" + placeholder(fl) + ">"
	}
	return "--" + fl.Name + "=" + fl.DefValue
}

// placeholder names what a flag takes.
func placeholder(fl *flag.Flag) string {
	switch {
	case isBool(fl.Value):
		return "bool"
	case strings.HasSuffix(fl.Name, "-file"), strings.HasSuffix(fl.Name, ".file"), fl.Name == "http.config",
		strings.HasSuffix(fl.Name, "tls-cert"), strings.HasSuffix(fl.Name, "tls-key"), strings.HasSuffix(fl.Name, "-ca"):
		return "path"
	case strings.HasSuffix(fl.Name, ".config"), strings.HasSuffix(fl.Name, "-config"), strings.HasSuffix(fl.Name, ".http-client"):
		return "yaml"
	case strings.HasSuffix(fl.Name, "-time"):
		return "time"
	}
	return "value"
}

func usage(fl *flag.Flag) string {
	if repeatable(fl.Value) && !strings.Contains(strings.ToLower(fl.Usage), "repeat") {
		return fl.Usage + " (repeatable)"
	}
	return fl.Usage
}

// wrap breaks text into lines of at most width letters, at spaces.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > width:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// newConfigTools makes `firnline tools config`, which looks at the configuration of a
// component without starting it. Its verbs take the component's name and flags.
func newConfigTools() *cobra.Command {
	noun := newGroup("config", "Look at a component's configuration without starting it")
	noun.AddCommand(
		newConfigVerb("check", "Tell everything that is wrong with a component's configuration", `Read a component's flags, environment and files as it would at its start, and tell
everything that is wrong with them, with exit code 2. Nothing is started or asked.`,
			func(w io.Writer, c *component, _ *flags) error {
				_, err := fmt.Fprintf(w, "%s: nothing is wrong with the configuration\n", c.name)
				return err
			}),
		newConfigVerb("print", "Print the values that a component would run with, and whence each is", `Print every flag of a component with the value that is in force, as YAML, and behind
it whether that is from the command line, the environment or the file, derived from
other flags or the machine, or the default. What may be a secret is hidden.`,
			func(w io.Writer, _ *component, f *flags) error { return f.print(w) }),
		newConfigVerb("defaults", "Print a configuration file of all defaults, to begin with", `Print a file for --config.file in which each flag of a component stands with its
default and what it means, as a comment.`,
			func(w io.Writer, _ *component, f *flags) error { return f.printDefaults(w) }),
	)
	return noun
}

func newConfigVerb(verb, short, long string, do func(io.Writer, *component, *flags) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " COMPONENT [flags of the component]", Short: short, Long: long,
		Example:            "  firnline tools config " + verb + " store --config.file=store.yml",
		DisableFlagParsing: true, // they are the component's
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || slices.Contains([]string{"-h", "--help", "help"}, args[0]) {
				return cmd.Help()
			}
			c, f, err := parseComponent(args[0], args[1:])
			if err != nil {
				return err
			}
			if err := c.configure(f); err != nil && verb != "defaults" {
				return usageError{err}
			}
			return do(cmd.OutOrStdout(), c, f)
		},
	}
}

// parseComponent reads the command line of a component.
func parseComponent(name string, args []string) (*component, *flags, error) {
	all := components()
	i := slices.IndexFunc(all, func(c *component) bool { return c.name == name })
	if i < 0 {
		var names []string
		for _, c := range all {
			names = append(names, c.name)
		}
		return nil, nil, usageError{fmt.Errorf("no component %q%s; there are %s", name, didYouMean("", name, names), strings.Join(names, ", "))}
	}
	f, cmd := newFlags(all[i].all()), &cobra.Command{Use: name}
	f.attach(cmd.Flags())
	if err := cmd.ParseFlags(args); err != nil {
		return nil, nil, flagError(cmd, err)
	}
	return all[i], f, noArgs(cmd, cmd.Flags().Args())
}

// print writes all values in force as YAML, each with its origin.
func (f *flags) print(w io.Writer) error {
	values, doc := f.effective(), &yaml.Node{Kind: yaml.MappingNode}
	for _, fl := range f.listed() {
		value := scalar(values[fl.Name])
		if given := f.given[fl.Name]; repeatable(fl.Value) && values[fl.Name] != hiddenValue && (len(given) > 0 || value.Value == "[]") {
			value = &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
			for _, v := range given {
				value.Content = append(value.Content, scalar(v))
			}
		}
		value.LineComment = "# " + f.whence(fl)
		doc.Content = append(doc.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: fl.Name}, value)
	}
	enc := yaml.NewEncoder(w)
	return errors.Join(enc.Encode(doc), enc.Close())
}

// scalar is a value as YAML, which takes nothing at all for no value.
func scalar(value string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: value}
	if value == "" {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// whence tells where a flag's value is from.
func (f *flags) whence(fl *flag.Flag) string {
	switch origin := f.origin[identity(fl)]; {
	case origin == "flag":
		return "command line"
	case origin == "env":
		return "environment"
	case origin != "":
		return origin
	}
	if _, ok := f.derived[fl.Name]; ok {
		return "derived"
	}
	return "default"
}

// printDefaults writes a configuration file that changes nothing.
func (f *flags) printDefaults(w io.Writer) error {
	var b strings.Builder
	for _, fl := range f.listed() {
		for _, line := range wrap(usage(fl), helpWidth-2) {
			fmt.Fprintf(&b, "# %s\n", line)
		}
		fmt.Fprintf(&b, "#%s: %s\n\n", fl.Name, fl.DefValue)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// listed are the flags that a configuration file may have.
func (f *flags) listed() []*flag.Flag {
	var out []*flag.Flag
	f.set.VisitAll(func(fl *flag.Flag) {
		if fl.Name != configFlag && !strings.HasPrefix(fl.Usage, "Removed:") {
			out = append(out, fl)
		}
	})
	return out
}

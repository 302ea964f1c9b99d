package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

const (
	envPrefix  = "FIRNLINE_"
	configFlag = "config.file"
	outputFlag = "output" // of tools; -o for short

	hiddenValue = "<hidden>" // in place of what may be a secret
)

// configurer is a part of a command's configuration.
type configurer interface {
	RegisterFlags(fs *flag.FlagSet)
	Validate() error
}

// flags are all flags of a command. A value comes from the command line, else
// from the environment, else from the configuration file, else it is the default.
type flags struct {
	set        *flag.FlagSet
	configFile string

	origin map[any]string      // by identity: where a value came from: "flag", "env", "file"; none: the default
	given  map[string][]string // by name: what it was set to, for flags that can't tell
	notes  []string            // what to warn of once there is a logger

	everyday []string // those that --help shows; nil: all that are not rare

	derived map[string]string // by name: defaults that follow from other flags or from the machine
}

func newFlags(parts []configurer) *flags {
	f := &flags{set: flag.NewFlagSet("", flag.ContinueOnError), origin: map[any]string{}, given: map[string][]string{}, derived: map[string]string{}}
	f.set.StringVar(&f.configFile, configFlag, "", "YAML file with values of flags: a mapping of their names, without dashes. The command line and the environment take precedence.")
	for _, p := range parts {
		p.RegisterFlags(f.set)
	}
	return f
}

// attach makes the flags known to the command line: each under its name,
// booleans as --no-X too, and those of Thanos that have no effect
// here or another place.
func (f *flags) attach(fs *pflag.FlagSet) {
	f.set.VisitAll(func(fl *flag.Flag) {
		p := &pflag.Flag{Name: fl.Name, Usage: fl.Usage, DefValue: fl.DefValue, Value: fromLine{f, fl, false}}
		if fl.Name == outputFlag {
			p.Shorthand = "o"
		}
		if isBool(fl.Value) {
			p.NoOptDefVal = "true"
			if f.set.Lookup("no-"+fl.Name) == nil {
				fs.AddFlag(&pflag.Flag{Name: "no-" + fl.Name, Hidden: true, NoOptDefVal: "true", Value: fromLine{f, fl, true}})
			}
		}
		fs.AddFlag(p)
	})
	for _, i := range ignored() {
		if fs.Lookup(i.name) != nil {
			continue
		}
		addHidden(fs, i, ignoredValue{f, i})
	}
	for _, e := range elsewhere() {
		addHidden(fs, e, elsewhereValue{e})
	}
}

// addHidden makes a flag of Thanos known that help does not show, a boolean as --no-X too.
func addHidden(fs *pflag.FlagSet, n noEffect, v pflag.Value) {
	p := &pflag.Flag{Name: n.name, Hidden: true, Value: v}
	if n.isBool {
		p.NoOptDefVal = "true"
		fs.AddFlag(&pflag.Flag{Name: "no-" + n.name, Hidden: true, NoOptDefVal: "true", Value: v})
	}
	fs.AddFlag(p)
}

// resolve fills in what the command line has left to the environment and to the
// configuration file. The error lists everything that is wrong with either.
func (f *flags) resolve(lookup func(string) (string, bool)) error {
	var errs []error
	fromEnv := map[any]bool{} // an alias may be set in either of its names, in order of the names
	f.set.VisitAll(func(fl *flag.Flag) {
		value, ok := lookup(envName(fl.Name))
		if !ok || value == "" || f.origin[identity(fl)] != "" && !fromEnv[identity(fl)] {
			return
		}
		fromEnv[identity(fl)] = true
		values := []string{value}
		if repeatable(fl.Value) {
			values = strings.FieldsFunc(value, func(r rune) bool { return r == '\n' })
		}
		if err := f.assign(fl, "env", values); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: invalid value for --%s: %w", envName(fl.Name), fl.Name, err))
		}
	})
	if f.configFile != "" {
		errs = append(errs, f.readFile(f.configFile))
	}
	return errors.Join(errs...)
}

// assign sets a flag to values from one origin.
func (f *flags) assign(fl *flag.Flag, origin string, values []string) error {
	for _, v := range values {
		if err := fl.Value.Set(v); err != nil {
			return err
		}
		f.given[fl.Name] = append(f.given[fl.Name], v)
	}
	f.origin[identity(fl)] = origin
	return nil
}

// isSet tells whether the operator has set a flag, anywhere and by whatever name.
func (f *flags) isSet(name string) bool { return f.origin[identity(f.set.Lookup(name))] != "" }

// derive sets a flag that the operator has left to its default.
func (f *flags) derive(name, value string) error {
	if f.isSet(name) {
		return nil
	}
	if err := f.set.Lookup(name).Value.Set(value); err != nil {
		return fmt.Errorf("default %q of --%s: %w", value, name, err)
	}
	f.derived[name] = value
	return nil
}

// names lists the flags.
func (f *flags) names() []string {
	var out []string
	f.set.VisitAll(func(fl *flag.Flag) { out = append(out, fl.Name) })
	return out
}

// effective returns all values, for the status page. What may hold a secret is hidden.
func (f *flags) effective() map[string]string {
	out := map[string]string{}
	f.set.VisitAll(func(fl *flag.Flag) {
		out[fl.Name] = fl.Value.String()
		if isFunc(fl.Value) {
			out[fl.Name] = cmp.Or(strings.Join(f.given[fl.Name], ","), f.derived[fl.Name])
		}
		if f.set.Lookup(fl.Name+"-file") != nil && out[fl.Name] != "" {
			out[fl.Name] = hiddenValue
		}
	})
	return out
}

// config returns what was set, from wherever, in the syntax of the configuration
// file. What may hold a secret is hidden.
func (f *flags) config() (string, error) {
	effective, set := f.effective(), map[string]any{}
	for name, given := range f.given {
		switch {
		case f.set.Lookup(name+"-file") != nil:
			set[name] = effective[name]
		case repeatable(f.set.Lookup(name).Value):
			set[name] = given
		default:
			set[name] = effective[name]
		}
	}
	if len(set) == 0 {
		return "", nil
	}
	out, err := yaml.Marshal(set)
	if err != nil {
		return "", fmt.Errorf("configuration for the status page: %w", err)
	}
	return string(out), nil
}

// warn logs what was to be warned of.
func (f *flags) warn(log *slog.Logger) {
	for _, n := range slices.Compact(f.notes) {
		log.Warn(n)
	}
}

// envName is the environment variable that sets a flag.
func envName(name string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(name))
}

func isBool(v flag.Value) bool {
	b, ok := v.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// isFunc tells a flag made by flag.FlagSet.Func, which can't tell its value.
func isFunc(v flag.Value) bool { return reflect.TypeOf(v).Kind() == reflect.Func }

// identity tells flags apart by the variable they set, so that two names for one count as one.
func identity(fl *flag.Flag) any {
	if isFunc(fl.Value) {
		return fl.Name
	}
	return fl.Value
}

// repeatable tells a flag that appends from one that replaces, by whether it holds
// a slice. Flags that are functions are taken to append.
func repeatable(v flag.Value) bool {
	if c, ok := v.(interface{ IsCumulative() bool }); ok {
		return c.IsCumulative()
	}
	t := reflect.TypeOf(v)
	return isFunc(v) || t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Slice
}

// fromLine sets a flag from the command line, to the opposite for --no-X.
type fromLine struct {
	flags  *flags
	flag   *flag.Flag
	negate bool
}

func (v fromLine) String() string {
	if v.flag == nil { // the zero value, which pflag asks for
		return ""
	}
	return v.flag.Value.String()
}

func (v fromLine) Set(s string) error {
	if v.negate {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return err
		}
		s = strconv.FormatBool(!b)
	}
	return v.flags.assign(v.flag, "flag", []string{s})
}

// Type implements pflag.Value.
func (v fromLine) Type() string { return placeholder(v.flag) }

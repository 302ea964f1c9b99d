package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// role is a component's configuration with a flag of each kind.
type role struct {
	path, level string
	on          bool
	list        listFlag
	own         string // name of a flag that no other has
	alone       string
}

func (r *role) RegisterFlags(fs *flag.FlagSet) {
	fs.StringVar(&r.path, "path", "./data", "Folder.")
	fs.StringVar(&r.level, "level", "info", "Level.")
	fs.BoolVar(&r.on, "on", true, "Switch.")
	fs.Var(&r.list, "list", "List.")
	fs.StringVar(&r.alone, r.own, "", "Alone.")
}

func (r *role) Validate() error {
	if r.path == "" {
		return fmt.Errorf("--path is empty; see --pathology: %w", errors.New("cause"))
	}
	return nil
}

func mergedRoles() (*merged, *role, *role) {
	a, b := &role{own: "only-a"}, &role{own: "only-b"}
	return &merged{
		parts: []mergedPart{{"a", a}, {"b", b}}, apart: []string{"path"}, leaveOut: []string{"only-b"},
		usage: map[string]string{"level": "Level of both."}, defaults: map[string]string{"a.path": "/a"}, shown: map[string]string{"list": "found out"},
	}, a, b
}

func TestMergedFlags(t *testing.T) {
	for name, tc := range map[string]struct {
		env  map[string]string
		file string
		args []string
		a, b role
	}{
		"defaults":      {a: role{path: "/a", level: "info", on: true}, b: role{path: "./data", level: "info", on: true}},
		"set in both":   {args: []string{"--level=x", "--no-on", "--list=1", "--list=2"}, a: role{path: "/a", level: "x", list: listFlag{"1", "2"}}, b: role{path: "./data", level: "x", list: listFlag{"1", "2"}}},
		"set in one":    {args: []string{"--b.path=/b", "--only-a=y"}, a: role{path: "/a", level: "info", on: true, alone: "y"}, b: role{path: "/b", level: "info", on: true}},
		"environment":   {env: map[string]string{"FIRNLINE_A_PATH": "/e", "FIRNLINE_LIST": "1\n2"}, a: role{path: "/e", level: "info", on: true, list: listFlag{"1", "2"}}, b: role{path: "./data", level: "info", on: true, list: listFlag{"1", "2"}}},
		"file and flag": {file: "a.path: /f\nlist: [1, 2]\non: false\n", args: []string{"--on"}, a: role{path: "/f", level: "info", on: true, list: listFlag{"1", "2"}}, b: role{path: "./data", level: "info", on: true, list: listFlag{"1", "2"}}},
	} {
		t.Run(name, func(t *testing.T) {
			m, a, b := mergedRoles()
			f := newFlags([]configurer{m})
			fs := pflag.NewFlagSet("", pflag.ContinueOnError)
			f.attach(fs)
			if tc.file != "" {
				tc.args = append(tc.args, "--config.file="+write(t, filepath.Join(t.TempDir(), "c.yml"), tc.file))
			}
			require.NoError(t, fs.Parse(tc.args))
			require.NoError(t, f.resolve(func(name string) (string, bool) { v, ok := tc.env[name]; return v, ok }))
			tc.a.own, tc.b.own = a.own, b.own
			require.Equal(t, tc.a, *a)
			require.Equal(t, tc.b, *b)
		})
	}
}

func TestMergedFlagsAreNamedAsTheyAreHere(t *testing.T) {
	m, a, _ := mergedRoles()
	f := newFlags([]configurer{m})
	require.Nil(t, f.set.Lookup("path"))
	require.Nil(t, f.set.Lookup("only-b"), "left out")
	require.Equal(t, "Level of both.", f.set.Lookup("level").Usage)
	require.Equal(t, "found out", f.set.Lookup("list").DefValue)
	a.path = ""
	require.EqualError(t, m.Validate(), "--a.path is empty; see --pathology: cause")
	require.NoError(t, f.derive("list", "1"))
	require.Equal(t, listFlag{"1"}, a.list)
	require.False(t, f.isSet("list"))
}

// TestPartsNameFlagsAsTheyAreHere: what a part logs, and what it fails with, too.
func TestPartsNameFlagsAsTheyAreHere(t *testing.T) {
	m, _, _ := mergedRoles()
	newFlags([]configurer{m})
	var text bytes.Buffer
	of := &process{bare: newLogger(logConfig{Level: "info", Format: "logfmt"}, &text)}
	cause := fmt.Errorf("--path: %w", os.ErrNotExist)
	a := part{"a", m}
	a.log(of).With("id", 1).WithGroup("g").Warn("see --path", "err", cause, "at", "--level and --path=x", "n", 3)
	require.Contains(t, text.String(), `component=a id=1`)
	require.Contains(t, text.String(), `msg="see --a.path"`)
	require.Contains(t, text.String(), `g.err="--a.path: file does not exist" g.at="--level and --a.path=x" g.n=3`)
	for _, err := range []error{
		a.error(cause), a.runner(fails{cause}).Run(t.Context()), a.checks(map[string]func() error{"x": func() error { return cause }})["x"](),
	} {
		require.EqualError(t, err, "--a.path: file does not exist")
		require.ErrorIs(t, err, os.ErrNotExist)
	}
	require.NoError(t, a.error(nil))
	other := errors.New("nothing of flags")
	require.Equal(t, other, a.error(other))
}

// fails is a part that does nothing else.
type fails struct{ err error }

func (f fails) Run(context.Context) error { return f.err }

// TestFlagsOfSeveralComponents lists each name that several components have,
// and what `firnline all` makes of it. A new one has to be decided upon:
// add it to allflags.go if the components don't mean the same.
func TestFlagsOfSeveralComponents(t *testing.T) {
	a := &all{}
	m := a.merged()
	byName := m.collect()
	var out strings.Builder
	names := []string{}
	for name, owned := range byName {
		if len(owned) > 1 || slices.Contains(m.apart, name) || slices.Contains(m.leaveOut, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		owned := byName[name]
		var who []string
		same := true
		for _, f := range owned {
			who = append(who, f.owner)
			same = same && f.Usage == owned[0].Usage && f.DefValue == owned[0].DefValue
		}
		verdict := "once"
		_, explained := m.usage[name]
		switch {
		case slices.Contains(m.apart, name):
			verdict = "each its own"
			require.Greater(t, len(owned), 1, "--%s is apart from nothing", name)
		case slices.Contains(m.leaveOut, name):
			verdict = "left out"
		default:
			require.True(t, same || explained, "--%s differs in %v: decide in allflags.go", name, who)
		}
		fmt.Fprintf(&out, "%-30s %-13s %s\n", name, verdict, strings.Join(who, " "))
	}
	golden(t, filepath.Join("testdata", "all_flags.txt"), out.String())

	f := newFlags(newAll().all())
	for _, list := range [][]string{flagsEveryday(), keysOf(flagDefaults()), keysOf(flagUsages())} {
		for _, name := range list {
			require.NotNil(t, f.set.Lookup(name), "there is no --%s", name)
		}
	}
	for _, name := range flagsLeftOut() {
		require.NotEmpty(t, byName[name], "no component has --%s", name)
		require.Nil(t, f.set.Lookup(name))
	}
}

func keysOf(m map[string]string) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

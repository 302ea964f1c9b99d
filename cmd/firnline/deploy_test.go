package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const deploy = "../../deploy"

// requireTaken checks that a component takes a command line that we ship. Files that
// are mounted where it runs are looked for at the places that files names.
func requireTaken(t *testing.T, what string, args []string, files map[string]string) {
	t.Helper()
	require.NoError(t, validate(requireFlags(t, what, args, files).all()), what)
}

// requireFlags checks that a component has the flags of a command line, and takes their values.
func requireFlags(t *testing.T, what string, args []string, files map[string]string) *component {
	t.Helper()
	require.NotEmpty(t, args, what)
	for _, c := range components() {
		if c.name != args[0] {
			continue
		}
		f := newFlags(c.all())
		for _, a := range args[1:] {
			for mounted, here := range files {
				a = strings.Replace(a, "="+mounted, "="+here, 1)
			}
			name, value, given := strings.Cut(strings.TrimPrefix(a, "--"), "=")
			fl := f.set.Lookup(name)
			require.NotNil(t, fl, "%s: no flag %s", what, a)
			if !given {
				require.True(t, isBool(fl.Value), "%s: %s", what, a)
				value = "true"
			}
			require.NoError(t, f.assign(fl, "flag", []string{value}), "%s: %s", what, a)
		}
		return c
	}
	t.Fatalf("%s: no component %s", what, args[0])
	return nil
}

// TestChart: the components take the flags that the chart gives them. The chart is
// rendered by `make check-deploy`, which names the folder with what came out.
func TestChart(t *testing.T) {
	dir := os.Getenv("FIRNLINE_CHART")
	if dir == "" {
		t.Skip("no rendered chart: run make check-deploy")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	require.NoError(t, err)
	n := 0
	for _, path := range files {
		data, err := os.Open(path)
		require.NoError(t, err)
		for docs := yaml.NewDecoder(data); ; {
			var d struct {
				Kind string
				Spec struct {
					Template struct {
						Spec struct{ Containers []struct{ Args []string } }
					}
				}
			}
			if err := docs.Decode(&d); err != nil {
				require.ErrorIs(t, err, io.EOF)
				break
			}
			for _, c := range d.Spec.Template.Spec.Containers {
				requireFlags(t, path, c.Args, nil)
				n++
			}
		}
		require.NoError(t, data.Close())
	}
	require.Greater(t, n, 10)
}

// TestCompose: the components take the command lines of deploy/compose, which has
// what `make demo` starts.
func TestCompose(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(deploy, "compose", "compose.yaml"))
	require.NoError(t, err)
	var file struct {
		Services map[string]struct {
			Image       string
			Command     []string
			Volumes     []string
			Healthcheck struct{ Test []string }
		}
		Volumes map[string]any
	}
	require.NoError(t, yaml.Unmarshal(data, &file))
	n := map[string]int{}
	for name, s := range file.Services {
		files := map[string]string{}
		for _, v := range s.Volumes {
			from, rest, _ := strings.Cut(v, ":")
			mounted, _, _ := strings.Cut(rest, ":")
			if !strings.HasPrefix(from, ".") {
				require.Contains(t, file.Volumes, from, name)
				continue
			}
			files[mounted] = filepath.Join(deploy, "compose", from)
			_, err := os.Stat(files[mounted])
			require.NoError(t, err, name)
		}
		if s.Image == "${FIRNLINE_IMAGE}" {
			n[s.Command[0]]++
			requireTaken(t, name, s.Command, files)
			require.Equal(t, []string{"CMD", "/bin/firnline", "tools", "ready"}, s.Healthcheck.Test, name)
		}
	}
	require.Equal(t, map[string]int{"sidecar": 4, "ingest": 3, "store": 1, "compact": 1, "query": 1}, n)
}

// TestPlainMachines: flags that the examples for Ansible and Terraform set are those of
// the component that they are given to.
func TestPlainMachines(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(deploy, "ansible", "group_vars", "all.yml"))
	require.NoError(t, err)
	var vars struct {
		Flags map[string]map[string]any `yaml:"firnline_flags"`
	}
	require.NoError(t, yaml.Unmarshal(data, &vars))
	require.Len(t, vars.Flags, 5)

	example, err := os.ReadFile(filepath.Join(deploy, "terraform", "example.tfvars"))
	require.NoError(t, err)
	_, byComponent, found := strings.Cut(string(example), "\nflags = {")
	require.True(t, found)
	byComponent, _, found = strings.Cut(byComponent, "\n}")
	require.True(t, found)
	key := regexp.MustCompile(`"([a-z0-9.-]+)" += `)
	for _, c := range regexp.MustCompile(`(?ms)^  (\w+) +=(.*?)(?:^  }$| }$)`).FindAllStringSubmatch(byComponent, -1) {
		of := map[string]any{}
		for _, k := range key.FindAllStringSubmatch(c[2], -1) {
			of[k[1]] = nil
		}
		require.NotEmpty(t, of, c[1])
		vars.Flags["terraform "+c[1]] = of
	}
	require.Len(t, vars.Flags, 9)
	for what, flags := range vars.Flags {
		name := strings.TrimPrefix(what, "terraform ")
		i := slices.IndexFunc(components(), func(c *component) bool { return c.name == name })
		require.GreaterOrEqual(t, i, 0, what)
		f := newFlags(components()[i].all())
		for flag := range flags {
			require.NotNil(t, f.set.Lookup(flag), "%s has no flag %s", what, flag)
		}
	}
}

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/tools/prove"
)

// metricDoc is what a registry says of a metric, taken from how prometheus.Desc prints itself.
var metricDoc = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: ("(?:[^"\\]|\\.)*"), unit: "[^"]*", constLabels: \{.*?\}, variableLabels: \{(.*)\}\}$`)

// TestMetricsReference keeps docs/reference/metrics.md in step with what each component registers.
func TestMetricsReference(t *testing.T) {
	byComponent, everywhere := map[string]map[string]string{}, map[string]string{}
	single := slices.DeleteFunc(components(), func(c *component) bool { return c.name == "all" })
	for _, c := range single {
		byComponent[c.name] = registered(t, c, nil)
	}
	rings := map[string]string{"receive.hashrings": `[{"endpoints":["127.0.0.1:10901"]}]`, "receive.local-endpoint": "127.0.0.1:10901"}
	maps.Copy(byComponent["ingest"], registered(t, newIngest(), rings)) // which has no gossip
	known := map[string]string{}
	for _, rows := range byComponent {
		require.Greater(t, len(rows), 30)
		maps.Copy(known, rows)
	}
	for name, row := range registered(t, newAll(), nil) {
		require.Equal(t, known[name], row, "firnline all has the components' metrics")
	}
	for name, row := range byComponent["store"] {
		shared := true
		for _, rows := range byComponent {
			shared = shared && rows[name] == row
		}
		if shared {
			everywhere[name] = row
		}
	}
	var b strings.Builder
	fmt.Fprint(&b, `# Metrics

Generated from the code by `+"`go test ./cmd/firnline -update`"+`: don't edit. Beside these each process has
the `+"`go_*` and `process_*`"+` metrics of Prometheus' client. In `+"`firnline all`"+` those of
a component have the label `+"`component`"+` with its name. Names are kept as [flags](flags.md) are.
`)
	table := func(title string, rows map[string]string) {
		fmt.Fprintf(&b, "\n## %s\n\n| metric | labels | meaning |\n|---|---|---|\n", title)
		for _, name := range slices.Sorted(maps.Keys(rows)) {
			b.WriteString(rows[name])
		}
	}
	table("Every component", everywhere)
	for _, c := range single {
		maps.DeleteFunc(byComponent[c.name], func(name, row string) bool { return everywhere[name] == row })
		table("firnline "+c.name, byComponent[c.name])
	}
	reg := prometheus.NewRegistry()
	prove.New(prove.Config{}, nil, slog.New(slog.DiscardHandler), reg)
	table("firnline tools prove", describe(t, reg))
	golden(t, filepath.Join("..", "..", "docs", "reference", "metrics.md"), b.String())
}

// registered returns a row for each metric of ours that a component registers once it is made.
func registered(t *testing.T, c *component, more map[string]string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bucket"), 0o755))
	f := newFlags(c.all())
	settings := map[string]string{
		"objstore.config": "{type: FILESYSTEM, config: {directory: " + filepath.Join(dir, "bucket") + "}}",
		"data-dir":        filepath.Join(dir, "data"), "tsdb.path": filepath.Join(dir, "tsdb"), "label": `replica="a"`,
		"prometheus.url": "http://127.0.0.1:1", "http-address": "127.0.0.1:0", "grpc-address": "127.0.0.1:0",
		"remote-write.address": "127.0.0.1:0", "ring.bind-address": "127.0.0.1:0", "enable-auto-gomemlimit": "false",
	}
	maps.Copy(settings, more)
	for name, value := range settings {
		if fl := f.set.Lookup(name); fl != nil {
			require.NoError(t, f.assign(fl, "flag", []string{value}), name)
		}
	}
	var rows map[string]string
	build := c.build
	c.build = func(ctx context.Context, p *process) ([]runner, error) {
		_, err := build(ctx, p)
		rows = describe(t, p.reg)
		if err != nil {
			return nil, err
		}
		_, err = p.reg.Gather()
		require.NoError(t, err, "what is described is what comes")
		return []runner{ended{}}, nil
	}
	require.NoError(t, c.configure(f))
	c.base.server.ShutdownDelay = 0
	require.NoError(t, c.run(t.Context(), f, io.Discard))
	return rows
}

// describe returns a row for each metric of ours that a registry knows.
func describe(t *testing.T, reg *prometheus.Registry) map[string]string {
	t.Helper()
	rows, descs := map[string]string{}, make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		reg.Describe(descs)
	}()
	for d := range descs {
		m := metricDoc.FindStringSubmatch(d.String())
		require.NotNil(t, m, d)
		help, err := strconv.Unquote(m[2])
		require.NoError(t, err)
		if strings.HasPrefix(m[1], "firnline_") {
			rows[m[1]] = fmt.Sprintf("| `%s` | %s | %s |\n", m[1], strings.ReplaceAll(m[3], ",", ", "), cell(help))
		}
	}
	return rows
}

// ended is a part that has done all it was to do.
type ended struct{}

func (ended) Run(context.Context) error { return errFinished }

package main

import (
	"bytes"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// sample is a configuration with a flag of each kind.
type sample struct {
	addr, alias, yaml, yamlFile string
	on                          bool
	list                        listFlag
	called                      []string
}

type listFlag []string

func (l *listFlag) String() string     { return strings.Join(*l, ",") }
func (l *listFlag) Set(s string) error { *l = append(*l, s); return nil }

func (s *sample) RegisterFlags(fs *flag.FlagSet) {
	fs.StringVar(&s.addr, "http-address", "default", "Address.")
	fs.StringVar(&s.alias, "web.config.file", "", "Alias.")
	fs.StringVar(&s.alias, "http.config", "", "Path.")
	fs.StringVar(&s.yaml, "objstore.config", "", "Content.")
	fs.StringVar(&s.yamlFile, "objstore.config-file", "", "Path.")
	fs.BoolVar(&s.on, "web.enable", true, "Switch.")
	fs.Var(&s.list, "endpoint", "Address.")
	fs.Func("query.replica-label", "Label.", func(v string) error { s.called = append(s.called, v); return nil })
}

func (s *sample) Validate() error { return nil }

// parse runs a command line over the sample.
func parse(t *testing.T, env map[string]string, file string, args ...string) (*sample, *flags, error) {
	t.Helper()
	s := &sample{}
	f := newFlags([]configurer{s})
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.attach(fs)
	if file != "" {
		args = append(args, "--config.file="+write(t, filepath.Join(t.TempDir(), "firnline.yml"), file))
	}
	require.NoError(t, fs.Parse(args))
	err := f.resolve(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	return s, f, err
}

func TestPrecedence(t *testing.T) {
	const file = "http-address: file\nendpoint: [f1, f2]\nweb.enable: false\n"
	env := map[string]string{"FIRNLINE_HTTP_ADDRESS": "env", "FIRNLINE_ENDPOINT": "e1\ne2", "FIRNLINE_WEB_ENABLE": "true"}
	for name, tc := range map[string]struct {
		env  map[string]string
		file string
		args []string
		want sample
	}{
		"default":     {want: sample{addr: "default", on: true}},
		"file":        {file: file, want: sample{addr: "file", list: listFlag{"f1", "f2"}}},
		"env > file":  {env: env, file: file, want: sample{addr: "env", on: true, list: listFlag{"e1", "e2"}}},
		"flag > env":  {env: env, file: file, args: []string{"--http-address=flag", "--no-web.enable", "--endpoint=a", "--endpoint", "b"}, want: sample{addr: "flag", list: listFlag{"a", "b"}}},
		"alias":       {env: map[string]string{"FIRNLINE_HTTP_CONFIG": "env"}, file: "web.config.file: file\n", args: []string{"--web.config.file=flag"}, want: sample{addr: "default", on: true, alias: "flag"}},
		"empty env":   {env: map[string]string{"FIRNLINE_HTTP_ADDRESS": ""}, want: sample{addr: "default", on: true}},
		"yaml in env": {env: map[string]string{"FIRNLINE_OBJSTORE_CONFIG": "type: S3\nconfig: {}\n"}, want: sample{addr: "default", on: true, yaml: "type: S3\nconfig: {}\n"}},
		"yaml in file": {file: "objstore.config:\n  type: S3\n  config:\n    bucket: $(B)\n", want: sample{addr: "default", on: true,
			yaml: "type: S3\nconfig:\n    bucket: $(B)\n"}},
		"function":     {env: map[string]string{"FIRNLINE_QUERY_REPLICA_LABEL": "a\nb"}, want: sample{addr: "default", on: true, called: []string{"a", "b"}}},
		"--no-x=false": {args: []string{"--no-web.enable=false"}, want: sample{addr: "default", on: true}},
		"--x=false":    {args: []string{"--web.enable=false"}, want: sample{addr: "default"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := parse(t, maps.Clone(tc.env), tc.file, tc.args...)
			require.NoError(t, err)
			require.Equal(t, tc.want, *got)
		})
	}
}

func TestConfigFileErrors(t *testing.T) {
	for name, tc := range map[string]struct{ file, want string }{
		"unknown":     {"http-address: x\nhttp-adress: y\n", `firnline.yml:2: unknown flag "http-adress"; did you mean "http-address"?`},
		"all of them": {"a: 1\nzzz: 2\n", "firnline.yml:2: unknown flag \"zzz\""},
		"twice":       {"http-address: x\nhttp-address: y\n", "firnline.yml:2: http-address is set twice"},
		"list":        {"http-address: [x]\n", "firnline.yml:1: http-address takes one value, not a list"},
		"deep list":   {"endpoint: [[x]]\n", "firnline.yml:1: endpoint: want a list of plain values"},
		"null":        {"http-address:\n", "firnline.yml:1: http-address has no value"},
		"bad value":   {"web.enable: perhaps\n", "firnline.yml:1: invalid value for --web.enable: "},
		"no mapping":  {"- x\n", "firnline.yml:1: want a mapping"},
		"syntax":      {"a: b: c\n", "firnline.yml: line 1: mapping values"},
		"itself":      {"config.file: x\n", "firnline.yml:1: unknown flag \"config.file\""},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := parse(t, nil, tc.file)
			require.ErrorContains(t, err, tc.want)
		})
	}
	_, _, err := parse(t, nil, "# nothing\n")
	require.NoError(t, err)
}

func TestFlagsOfThanos(t *testing.T) {
	_, f, err := parse(t, nil, "", "--no-cache-index-header", "--grpc.proxy-strategy=lazy")
	require.NoError(t, err)
	var logs bytes.Buffer
	f.warn(slog.New(slog.NewTextHandler(&logs, nil)))
	for _, want := range []string{"--cache-index-header is accepted but has no effect", "--grpc.proxy-strategy is accepted"} {
		require.Contains(t, logs.String(), want)
	}
}

// TestFlagsOfThanosElsewhere: what would change something here is refused with the place where it is set.
func TestFlagsOfThanosElsewhere(t *testing.T) {
	for _, e := range elsewhere() {
		code, _, errs := cli(t, "ingest", "--"+e.name+"=x")
		require.Equal(t, 2, code)
		require.Contains(t, errs, e.why)
	}
	_, _, errs := cli(t, "ingest", "--no-receive.otlp-enable-target-info")
	require.Contains(t, errs, "otlp: {target_info: …}")
	_, _, err := parse(t, nil, "", "--remote-write.server-tls-cert=")
	require.NoError(t, err, "an empty one asks for nothing")
}

func TestFlagsOnTheStatusPageHideSecrets(t *testing.T) {
	_, f, err := parse(t, nil, "", "--objstore.config=secret_key: CANARY", "--objstore.config-file=/path", "--query.replica-label=a", "--query.replica-label=b")
	require.NoError(t, err)
	shown := f.effective()
	require.Equal(t, "/path", shown["objstore.config-file"])
	require.Equal(t, "default", shown["http-address"])
	require.Equal(t, "a,b", shown["query.replica-label"])
	require.NotContains(t, fmt.Sprint(shown), "CANARY")

	config, err := f.config()
	require.NoError(t, err)
	require.Equal(t, "objstore.config: <hidden>\nobjstore.config-file: /path\nquery.replica-label:\n    - a\n    - b\n", config)
}

func TestDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"kitten", "sitting", 3}, {"data_dir", "data-dir", 0}, {"Store", "store", 0}} {
		require.Equal(t, tc.want, distance(tc.a, tc.b), tc)
		require.Equal(t, tc.want, distance(tc.b, tc.a), tc)
	}
}

func TestToolsConfig(t *testing.T) {
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "store.yml"), "data-dir: "+dir+"\nobjstore.config: {type: FILESYSTEM, config: {directory: /b}}\nlog.level: warn\n")
	t.Setenv("FIRNLINE_LOG_FORMAT", "json")
	args := []string{"store", "--config.file=" + file, "--log.level=debug", "--selector.relabel-config=[]"}
	code, out, errs := cli(t, append([]string{"tools", "config", "print"}, args...)...)
	require.Equal(t, exitOK, code, errs)
	for _, want := range []string{
		"log.level: debug # command line\n", "log.format: json # environment\n", "data-dir: " + dir + " # file\n",
		"objstore.config: <hidden> # file\n", "http-address: 0.0.0.0:10902 # default\n",
	} {
		require.Contains(t, out, want)
	}
	code, out, _ = cli(t, "tools", "config", "print", "all", "--data-dir="+dir, "--endpoint=a:1", "--endpoint=b:2")
	require.Equal(t, exitOK, code)
	require.Contains(t, out, "endpoint: ['a:1', 'b:2'] # command line\n")
	require.Contains(t, out, "store.data-dir: "+filepath.Join(dir, "store")+" # derived\n")
	require.NoError(t, yaml.Unmarshal([]byte(out), &map[string]any{}))

	code, out, errs = cli(t, append([]string{"tools", "config", "check"}, args...)...)
	require.Equal(t, exitOK, code, errs)
	require.Contains(t, out, "nothing is wrong")
	code, _, errs = cli(t, "tools", "config", "check", "all", "--config.file="+write(t, filepath.Join(dir, "d.yml"), "log.level: loud\n"), "--http-address=x")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "--log.level: want")
	require.Contains(t, errs, "--http-address: want")
	for bad, want := range map[string]string{"stor": `no component "stor"; did you mean "store"?`, "": "no component"} {
		code, _, errs = cli(t, "tools", "config", "check", bad)
		require.Equal(t, exitUsage, code)
		require.Contains(t, errs, want)
	}
	code, _, errs = cli(t, "tools", "config", "check", "store", "--http-adress=x")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, `did you mean "--http-address"?`)

	for _, c := range components() {
		code, out, errs = cli(t, "tools", "config", "defaults", c.name)
		require.Equal(t, exitOK, code, errs)
		require.Contains(t, out, "#log.level: info\n")
		for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
			require.True(t, line == "" || line[0] == '#', line)
		}
	}
}

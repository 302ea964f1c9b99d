package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/proctest"
)

var update = flag.Bool("update", false, "write golden files and docs/reference/flags.md")

// asFirnline in the environment makes the test binary be firnline.
const asFirnline = "FIRNLINE_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asFirnline) != "" {
		main()
	}
	proctest.Main(m)
}

// cli is a command line run to its end.
func cli(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = execute(args, &out, &err)
	return code, out.String(), err.String()
}

// golden compares with a file, or writes it with -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run go test ./cmd/firnline -update")
	require.Equal(t, string(want), got, "if this is meant, run go test ./cmd/firnline -update")
}

func TestHelp(t *testing.T) {
	code, out, errs := cli(t)
	require.Zero(t, code)
	require.Empty(t, errs)
	golden(t, filepath.Join("testdata", "help", "firnline.txt"), out)

	cmd := &cobra.Command{Use: "sample", Long: "Does nothing, for an example.", Example: "  sample --endpoint=store:10901"}
	f := newFlags([]configurer{&sample{}})
	for name, all := range map[string]bool{"help": false, "help-all": true} {
		var buf bytes.Buffer
		writeHelp(&buf, cmd, f, all)
		golden(t, filepath.Join("testdata", "help", "sample_"+name+".txt"), buf.String())
	}
}

func TestEveryComponentHelps(t *testing.T) {
	for _, c := range components() {
		code, out, errs := cli(t, c.name, "--help")
		require.Zero(t, code)
		require.Empty(t, errs)
		for _, want := range []string{c.long, c.example, "Listeners:", "--http-address=0.0.0.0:10902", "[FIRNLINE_HTTP_ADDRESS]", "--help-all"} {
			require.Contains(t, out, want)
		}
	}
}

func TestEveryToolHelps(t *testing.T) {
	for _, g := range toolGroups() {
		for _, tl := range g.tools {
			code, out, errs := cli(t, append(strings.Fields(strings.TrimSuffix(g.path(tl), strings.Join(strings.Fields(tl.use)[1:], " "))), "--help")...)
			require.Zero(t, code)
			require.Empty(t, errs)
			for _, want := range []string{tl.long, tl.example, "--log.level=info"} {
				require.Contains(t, out, want)
			}
		}
	}
}

func TestReference(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp") // the default of --tmp.dir
	var buf bytes.Buffer
	writeReference(&buf, components(), toolGroups())
	golden(t, filepath.Join("..", "..", "docs", "reference", "flags.md"), buf.String())
}

func TestEveryFlagHasUsageAndFitsALine(t *testing.T) {
	for _, c := range components() {
		f := newFlags(c.all())
		f.set.VisitAll(func(fl *flag.Flag) {
			require.NotEmpty(t, fl.Usage, fl.Name)
			require.LessOrEqual(t, len(spelling(fl)), helpWidth, fl.Name)
		})
	}
}

func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--version"}} {
		code, out, _ := cli(t, args...)
		require.Zero(t, code)
		require.Regexp(t, `(?s)^firnline, version .*go version: +go1.*platform:.*tags:`, out)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		code, out, errs := cli(t, "completion", shell)
		require.Zero(t, code, errs)
		require.Contains(t, out, "firnline")
	}
	code, out, _ := cli(t, "__complete", "store", "--http-addr")
	require.Zero(t, code)
	require.Contains(t, out, "--http-address")
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"command":             {[]string{"sidcar"}, `unknown command "sidcar"; did you mean "sidecar"?`},
		"group":               {[]string{"tools", "delte"}, `unknown command "delte"`},
		"command with a flag": {[]string{"stor", "--data-dir=x"}, `unknown command "stor"; did you mean "store"?`},
		"verb with a flag":    {[]string{"tools", "bucket", "lst", "-o", "json"}, `unknown command "lst"; did you mean "ls"?`},
		"nothing like it":     {[]string{"xyzzyplugh"}, "unknown command \"xyzzyplugh\"\n"},
		"flag":                {[]string{"store", "--http-adress=x"}, `unknown flag: --http-adress; did you mean "--http-address"?`},
		"underscore":          {[]string{"store", "--data_dir=x"}, `did you mean "--data-dir"?`},
		"one dash":            {[]string{"store", "-log.level=x"}, `did you mean "--log.level"?`},
		"word":                {[]string{"store", "now"}, `unexpected argument "now"`},
		"value":               {[]string{"store", "--http-grace-period=soon"}, `invalid argument "soon" for "--http-grace-period"`},
		"no value":            {[]string{"store", "--data-dir"}, "flag needs an argument: --data-dir"},
		"parquet is not had":  {[]string{"store", "--objstore-parquet.config=x"}, "unknown flag: --objstore-parquet.config"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := cli(t, tc.args...)
			require.Equal(t, exitUsage, code)
			require.Empty(t, out)
			require.Contains(t, errs, tc.want)
			require.Contains(t, errs, "--help for usage")
		})
	}
}

func TestAllConfigErrorsAreListedAtOnce(t *testing.T) {
	dir := t.TempDir()
	objstore := write(t, filepath.Join(dir, "bucket.yml"), "type: FILESYSTEM\nconfig:\n  directry: x\n")
	logging := write(t, filepath.Join(dir, "log.yml"), "options:\n  level: LOUD\n")
	t.Setenv("FIRNLINE_HTTP_IDLE_TIMEOUT", "soon")
	code, _, errs := cli(t, "store", "--log.level=loud", "--objstore.config-file="+objstore, "--request.logging-config-file="+logging,
		"--config.file="+filepath.Join(dir, "missing.yml"), "--data-dir=", "--auto-gomemlimit.ratio=2", "--tracing.config={type: JAEGER}")
	require.Equal(t, exitUsage, code)
	for _, want := range []string{
		"--log.level: want debug, info, warn or error",
		"--objstore.config-file: " + objstore + ": objstore config: line 3: ",
		"--request.logging-config-file: " + logging + ": line 2: level: want DEBUG",
		"environment variable FIRNLINE_HTTP_IDLE_TIMEOUT: invalid value for --http-idle-timeout",
		"--config.file: open " + filepath.Join(dir, "missing.yml"),
		"--data-dir is empty",
		"--auto-gomemlimit.ratio: want more than 0",
		"--tracing.config: type: want OTLP",
	} {
		require.Contains(t, errs, want)
	}
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

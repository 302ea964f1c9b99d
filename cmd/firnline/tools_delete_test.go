package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
)

// deleteCLI is a bucket in a folder, and the command line on it.
type deleteCLI struct {
	*testing.T
	dir string
	cfg string
}

func newDeleteCLI(t *testing.T) *deleteCLI {
	dir := filepath.Join(t.TempDir(), "bucket")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	b, err := bucket.NewFolder(dir)
	require.NoError(t, err)
	local := t.TempDir()
	series := func(name string) blocktest.Series {
		return blocktest.Series{Labels: labels.FromStrings("__name__", name), Samples: blocktest.Floats(0, 3_600_000, 15_000, func(int64) float64 { return 1 })}
	}
	m := blocktest.Write(t, local, []blocktest.Series{series("up"), series("down")}, labels.FromStrings("cluster", "a"), blocktest.Options{})
	blocktest.Upload(t, b, local, m)
	return &deleteCLI{t, dir, "--objstore.config={type: FILESYSTEM, config: {directory: " + dir + "}}"}
}

func (c *deleteCLI) run(args ...string) (code int, out, errs string) {
	c.Helper()
	return cli(c.T, append([]string{"tools", "delete", args[0], c.cfg}, args[1:]...)...)
}

func TestToolsDelete(t *testing.T) {
	c := newDeleteCLI(t)
	for _, args := range [][]string{{"create", "--match=up"}, {"create", "--match=up", "--dry-run"}} {
		code, out, errs := c.run(args...)
		require.Equal(t, exitOK, code, errs)
		require.Regexp(t, `(?m)^1 blocks +1 +2 +240 *$`, out)
		require.Contains(t, errs, "Nothing was written. Give --yes to do it.")
	}
	code, out, errs := c.run("list")
	require.Equal(t, exitOK, code, errs)
	require.Equal(t, 1, strings.Count(out, "\n"), "only the head: %s", out)

	code, out, errs = c.run("create", "--match=up", "--match=down{cluster=\"a\"}", "--end=2026-01-31T00:00:00Z", "--reason=asked \x1b[31mto", "--yes")
	require.Equal(t, exitOK, code, errs)
	id, err := ulid.ParseStrict(strings.TrimSpace(out))
	require.NoError(t, err, "the id alone is data")

	code, out, errs = c.run("list")
	require.Equal(t, exitOK, code, errs)
	require.Regexp(t, id.String()+` +pending +\S+ +the first +2026-01-31T00:00:00Z +\S+@\S+ +up down{cluster="a"} +asked \x{FFFD}\[31mto`, out)
	code, out, _ = c.run("list", "-o", "json")
	require.Equal(t, exitOK, code)
	var all []block.DeleteRequest
	require.NoError(t, json.Unmarshal([]byte(out), &all))
	require.Equal(t, id, all[0].ID)

	code, _, errs = c.run("cancel", id.String())
	require.Equal(t, exitOK, code, errs)
	_, out, _ = c.run("list")
	require.Contains(t, out, "cancelled")
}

func TestToolsDeleteExitCodes(t *testing.T) {
	c := newDeleteCLI(t)
	for name, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no selector":   {[]string{"create"}, exitUsage, "--match: give a selector"},
		"bad selector":  {[]string{"create", "--match=up{"}, exitUsage, `selector "up{"`},
		"everything":    {[]string{"create", `--match={job!=""}`}, exitUsage, "matches nearly every series"},
		"upside down":   {[]string{"create", "--match=up", "--start=-1h", "--end=-2h"}, exitUsage, "before it begins"},
		"both":          {[]string{"create", "--match=up", "--yes", "--dry-run"}, exitUsage, "give one of them"},
		"output":        {[]string{"list", "-o", "xml"}, exitUsage, "want table, json or yaml"},
		"no id":         {[]string{"cancel"}, exitUsage, "want one argument"},
		"not an id":     {[]string{"cancel", "x"}, exitUsage, `"x" is no id`},
		"unknown id":    {[]string{"cancel", ulid.Make().String()}, exitProblem, "no such delete request"},
		"unknown flags": {[]string{"create", "--mach=up"}, exitUsage, `did you mean "--match"?`},
	} {
		t.Run(name, func(t *testing.T) {
			c := *c
			c.T = t
			code, out, errs := c.run(tc.args...)
			require.Equal(t, tc.code, code, errs)
			require.Contains(t, errs, tc.want)
			require.Empty(t, out)
		})
	}
	code, _, errs := cli(t, "tools", "delete", "list", "--objstore.max-retries=0",
		"--objstore.config={type: S3, config: {bucket: metrics, endpoint: '127.0.0.1:1', insecure: true, access_key: a, secret_key: b}}")
	require.Equal(t, exitUnreachable, code)
	require.Contains(t, errs, "[bucket-unreachable]")
	code, _, errs = cli(t, "tools", "delete", "list")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "a bucket is needed")
}

// TestToolsDeleteTellsOfTrouble: what can be had is printed, and the exit code
// says that something is wrong.
func TestToolsDeleteTellsOfTrouble(t *testing.T) {
	c := newDeleteCLI(t)
	code, _, errs := c.run("create", "--match=up", "--yes")
	require.Equal(t, exitOK, code, errs)
	bad := ulid.Make().String()
	write(t, filepath.Join(c.dir, "firnline", "deletes", bad+".json"), "{")
	code, out, errs := c.run("list")
	require.Equal(t, exitProblem, code)
	require.Contains(t, out, "pending")
	require.Contains(t, errs, bad)

	indexes, err := filepath.Glob(filepath.Join(c.dir, "*", "index"))
	require.NoError(t, err)
	require.Len(t, indexes, 1)
	require.NoError(t, os.Truncate(indexes[0], 100))
	code, out, errs = c.run("create", "--match=up")
	require.Equal(t, exitProblem, code)
	require.Contains(t, out, "could not be read")
	require.Contains(t, errs, "1 blocks could not be read")
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/tools"
)

// bucketCLI is a bucket in a folder with known blocks, and the command line on it.
type bucketCLI struct {
	*testing.T
	dir string
	cfg string
	bkt *bucket.Folder
}

const testHour = int64(3_600_000)

// testID is a ULID that is the same in each run.
func testID(n int) string {
	return ulid.MustNew(uint64(1_700_000_000_000+n), bytes.NewReader(make([]byte, 10))).String()
}

func newBucketCLI(t *testing.T) *bucketCLI {
	dir := filepath.Join(t.TempDir(), "bucket")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	b, err := bucket.NewFolder(dir)
	require.NoError(t, err)
	c := &bucketCLI{t, dir, folderYAML(dir), b}
	c.ship(1, 0, 2, "a")
	c.ship(2, 2, 4, "a")
	c.ship(3, 0, 2, "b")
	return c
}

func folderYAML(dir string) string {
	return "--objstore.config={type: FILESYSTEM, config: {directory: " + dir + "}}"
}

// ship uploads a block of two series in hours.
func (c *bucketCLI) ship(n int, from, to int64, cluster string) {
	c.Helper()
	local := c.TempDir()
	var series []blocktest.Series
	for _, name := range []string{"up", "down"} {
		series = append(series, blocktest.Series{Labels: labels.FromStrings("__name__", name), Samples: blocktest.Floats(from*testHour, to*testHour, 15_000, func(int64) float64 { return 1 })})
	}
	m := blocktest.Write(c, local, series, labels.FromStrings("cluster", cluster), blocktest.Options{ID: ulid.MustParse(testID(n)), MinTime: from * testHour, MaxTime: to * testHour})
	blocktest.Upload(c, c.bkt, local, m)
}

// run runs firnline tools with a noun and a verb on the bucket.
func (c *bucketCLI) run(noun, verb string, args ...string) (code int, out, errs string) {
	c.Helper()
	return cli(c.T, append([]string{"tools", noun, verb, c.cfg}, args...)...)
}

func TestToolsBucketOutputs(t *testing.T) {
	c := newBucketCLI(t)
	for name, args := range map[string][]string{
		"ls":          {"ls"},
		"ls_csv":      {"ls", "-o", "csv", "--bytes", `--selector=cluster="b"`},
		"ls_template": {"ls", "-o", "{{.ULID}} {{.Labels}} {{.Series}}"},
		"inspect":     {"inspect", "--sort-by=labels", "--sort-by=from"},
		"stats":       {"stats"},
		"stats_yaml":  {"stats", "-o", "yaml", `--selector=cluster="b"`},
		"verify":      {"verify"},
	} {
		t.Run(name, func(t *testing.T) {
			c := *c
			c.T = t
			code, out, errs := c.run("bucket", args[0], args[1:]...)
			require.Equal(t, exitOK, code, errs)
			golden(t, filepath.Join("testdata", "tools", name+".txt"), withoutNow(out)+"--- stderr\n"+errs)
		})
	}
	code, out, errs := c.run("bucket", "ls", "-o", "json")
	require.Equal(t, exitOK, code, errs)
	var rows []tools.Row
	require.NoError(t, json.Unmarshal([]byte(out), &rows))
	require.Len(t, rows, 3)
	require.Equal(t, testID(1), rows[0].ULID.String())
}

// withoutNow replaces the times of today and of yesterday, as it may be midnight:
// those are the blocks' upload times.
func withoutNow(s string) string {
	now := time.Now().UTC()
	for _, day := range []time.Time{now, now.AddDate(0, 0, -1)} {
		recent := regexp.MustCompile(day.Format("2006-01-02T") + `..:..:..Z`)
		s = recent.ReplaceAllString(s, "NOWNOWNOWNOWNOWNOW!!")
	}
	return s
}

func TestToolsBucketMark(t *testing.T) {
	c := newBucketCLI(t)
	mark := []string{"--id=" + testID(1), "--marker=deletion-mark.json"}
	code, out, errs := c.run("bucket", "mark", mark...)
	require.Equal(t, exitUsage, code, "off a terminal nothing is marked for deletion without --yes")
	require.Contains(t, errs, "nothing was done: give --yes")
	require.Contains(t, out, testID(1)+" would be marked with deletion-mark.json")
	code, out, errs = c.run("bucket", "mark", append(mark, "--dry-run")...)
	require.Equal(t, exitOK, code, errs)
	require.Contains(t, out, "would be")
	_, out, _ = c.run("bucket", "ls")
	require.NotContains(t, out, "marked")

	code, _, errs = c.run("bucket", "mark", append(mark, "--yes", "--details=old")...)
	require.Equal(t, exitOK, code, errs)
	_, out, _ = c.run("bucket", "ls")
	require.Contains(t, out, "marked")
	_, out, _ = c.run("bucket", "ls", "--exclude-delete", "-o", "template={{.ULID}}")
	require.NotContains(t, out, testID(1))
	code, _, errs = c.run("bucket", "unmark", mark...)
	require.Equal(t, exitOK, code, errs)
	_, out, _ = c.run("bucket", "ls")
	require.NotContains(t, out, "marked")
	code, _, errs = c.run("bucket", "mark", "--id="+testID(2), "--marker=no-compact-mark.json")
	require.Equal(t, exitOK, code, errs)
	code, _, errs = c.run("bucket", "mark", "--id="+testID(2), "--marker=no-compact-mark.json", "--remove")
	require.Equal(t, exitOK, code, errs)
}

func TestToolsBucketCleanup(t *testing.T) {
	c := newBucketCLI(t)
	data := []string{"--data-dir=" + t.TempDir(), "--consistency-delay=0s"} // the blocks are new
	old := time.Now().Add(-72 * time.Hour)
	require.NoError(t, block.WriteDeletionMark(t.Context(), c.bkt, block.DeletionMark{ID: ulid.MustParse(testID(1)), DeletionTime: old.Unix()}))
	require.NoError(t, os.Chtimes(filepath.Join(c.dir, testID(1), block.DeletionMarkFilename), old, old))
	require.NoError(t, os.Remove(filepath.Join(c.dir, testID(3), block.MetaFilename)))

	code, out, errs := c.run("bucket", "cleanup", data...)
	require.Equal(t, exitUsage, code, errs)
	require.Contains(t, out, testID(1)+"  marked for deletion for longer than --delete-delay")
	require.NotContains(t, out, testID(3), "it may be an upload that goes on")
	require.DirExists(t, filepath.Join(c.dir, testID(1)))
	code, _, errs = c.run("bucket", "cleanup", append(data, "--yes")...)
	require.Equal(t, exitOK, code, errs)
	require.NoDirExists(t, filepath.Join(c.dir, testID(1)))
	require.DirExists(t, filepath.Join(c.dir, testID(2)))
	require.DirExists(t, filepath.Join(c.dir, testID(3)))
}

func TestToolsBucketVerifyFindsDamage(t *testing.T) {
	c := newBucketCLI(t)
	require.NoError(t, os.Truncate(filepath.Join(c.dir, testID(1), "index"), 100))
	c.ship(4, 3, 5, "a")
	code, out, errs := c.run("bucket", "verify")
	require.Equal(t, exitProblem, code, errs)
	require.Contains(t, errs, "1 error, 1 warning.")
	require.Contains(t, out, testID(1))
	require.Contains(t, out, "overlap")
	require.NoError(t, os.RemoveAll(filepath.Join(c.dir, testID(1))))
	code, _, errs = c.run("bucket", "verify", "--full", "--tmp.dir="+t.TempDir())
	require.Equal(t, exitOK, code, errs)
	code, _, _ = c.run("bucket", "verify", "--strict")
	require.Equal(t, exitProblem, code)
}

func TestToolsBucketBadInput(t *testing.T) {
	c := newBucketCLI(t)
	for name, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"output":        {[]string{"ls", "-o", "xml"}, exitUsage, "want table, wide, json, yaml, csv or template={{.Field}}"},
		"template":      {[]string{"ls", "-o", "{{.ULID"}, exitUsage, "unclosed action"},
		"field":         {[]string{"ls", "-o", "{{.Beauty}}"}, exitUsage, "Beauty"},
		"sort":          {[]string{"inspect", "--sort-by=beauty"}, exitUsage, "no column"},
		"selector":      {[]string{"ls", "--selector=x"}, exitUsage, "--selector"},
		"no id":         {[]string{"mark", "--marker=no-compact-mark.json"}, exitUsage, "--id: give the ULID"},
		"bad id":        {[]string{"mark", "--id=x"}, exitUsage, "--id"},
		"marker":        {[]string{"mark", "--id=" + testID(1), "--marker=x"}, exitUsage, "no mark; there are"},
		"unknown block": {[]string{"mark", "--id=" + testID(9), "--marker=no-compact-mark.json"}, exitProblem, "no such block in the bucket"},
		"both":          {[]string{"cleanup", "--yes", "--dry-run"}, exitUsage, "give one of them"},
	} {
		t.Run(name, func(t *testing.T) {
			c := *c
			c.T = t
			code, out, errs := c.run("bucket", tc.args[0], tc.args[1:]...)
			require.Equal(t, tc.code, code, errs)
			require.Contains(t, errs, tc.want)
			require.Empty(t, out)
		})
	}
}

// TestToolsOnBadBuckets: one that isn't there, one of somebody else, one that is half broken.
func TestToolsBucketSelfTest(t *testing.T) {
	c := newBucketCLI(t)
	code, out, errs := c.run("bucket", "selftest")
	require.Equal(t, exitOK, code, errs)
	require.Regexp(t, `ABILITY +OK +DETAIL\nlist +yes +\nwrite +yes +in [0-9.a-z]+\nread +yes +\nconditional writes +yes +\nremove +yes +\nclock +yes +the bucket's is `, out)
	left, err := os.ReadDir(filepath.Join(c.dir, "firnline", "selftest"))
	require.True(t, os.IsNotExist(err) || len(left) == 0, "nothing is left")
	code, out, errs = cli(t, "tools", "bucket", "selftest", "--objstore.max-retries=0", "-o", "csv",
		"--objstore.config={type: S3, config: {bucket: metrics, endpoint: '127.0.0.1:1', insecure: true, access_key: a, secret_key: b}}")
	require.Equal(t, exitUnreachable, code)
	require.Contains(t, out, "list,no,")
	require.Contains(t, errs, "[bucket-unreachable]")

	denied := errors.New("denied")
	require.Equal(t, []ability{{"list", true, ""}, {"write", false, "denied"}}, abilities(bucket.Abilities{WriteErr: denied}))
	require.Equal(t, []ability{
		{"list", true, ""}, {"write", true, "in 5ms"}, {"read", true, ""}, {"conditional writes", false, "denied"}, {"remove", false, "denied"},
		{"clock", false, "the bucket's clock is 1h0m0s ahead: set one of them right"},
	}, abilities(bucket.Abilities{ConditionErr: denied, DeleteErr: denied, Skew: time.Hour, Latency: 5 * time.Millisecond}))
}

func TestToolsOnBadBuckets(t *testing.T) {
	foreign := t.TempDir()
	write(t, filepath.Join(foreign, "cat.jpg"), "meow")
	for _, verb := range []string{"ls", "inspect", "stats", "verify"} {
		code, _, errs := cli(t, "tools", "bucket", verb, folderYAML(filepath.Join(foreign, "missing")))
		require.Equal(t, exitUnreachable, code)
		require.Contains(t, errs, "[bucket-missing]")
		require.NoDirExists(t, filepath.Join(foreign, "missing"))
		code, _, errs = cli(t, "tools", "bucket", verb, folderYAML(foreign))
		require.Equal(t, exitProblem, code)
		require.Contains(t, errs, `other things, such as "cat.jpg"`)
		code, _, errs = cli(t, "tools", "bucket", verb, folderYAML(t.TempDir()))
		require.Equal(t, exitOK, code, errs)
		require.Contains(t, errs, "No blocks")
		code, _, errs = cli(t, "tools", "bucket", verb, "--objstore.max-retries=0",
			"--objstore.config={type: S3, config: {bucket: metrics, endpoint: '127.0.0.1:1', insecure: true, access_key: a, secret_key: b}}")
		require.Equal(t, exitUnreachable, code)
		require.Contains(t, errs, "[bucket-unreachable]")
	}
	c := newBucketCLI(t)
	write(t, filepath.Join(c.dir, testID(2), block.MetaFilename), "{")
	for _, verb := range []string{"ls", "inspect", "stats", "verify"} {
		code, out, errs := c.run("bucket", verb)
		require.Equal(t, exitProblem, code, errs)
		if verb != "stats" {
			require.Contains(t, out, testID(2), "what is broken is listed")
		}
	}
	code, out, _ := c.run("bucket", "ls")
	require.Equal(t, exitProblem, code)
	require.Contains(t, out, testID(1), "and the others, too")
	for _, verb := range []string{"analyze", "export"} {
		code, out, errs := cli(t, "tools", verb, c.cfg)
		require.Equal(t, exitProblem, code, verb)
		require.Contains(t, errs, "1 broken block", verb)
		require.NotEmpty(t, out, "what can be read is read")
		code, _, errs = cli(t, "tools", verb, folderYAML(foreign))
		require.Equal(t, exitProblem, code, verb)
		require.Contains(t, errs, `other things, such as "cat.jpg"`, verb)
	}
	for _, words := range [][]string{{"analyze"}, {"export"}, {"compact", "plan"}, {"bucket", "cleanup"}, {"bucket", "merge-shards", "--all"}} {
		code, _, errs := cli(t, append(append([]string{"tools"}, words...), folderYAML(filepath.Join(foreign, "missing")))...)
		require.Equal(t, exitUnreachable, code, "%v: %s", words, errs)
		require.Contains(t, errs, "[bucket-missing]")
	}
}

func TestToolsBucketUploadReplicateRewrite(t *testing.T) {
	c := newBucketCLI(t)
	second := t.TempDir()
	to := "--objstore-to.config={type: FILESYSTEM, config: {directory: " + second + "}}"
	code, _, errs := c.run("bucket", "replicate", to, `--selector=cluster="a"`, "--resolution=raw")
	require.Equal(t, exitOK, code, errs)
	require.Contains(t, errs, "2 blocks of 2 sent")
	require.FileExists(t, filepath.Join(second, testID(2), block.MetaFilename))
	code, out, errs := c.run("bucket", "replicate", to)
	require.Equal(t, exitOK, code, errs)
	require.Regexp(t, testID(1)+" +0 B +there already", out)
	require.Contains(t, errs, "1 block of 3 sent")

	third := t.TempDir()
	code, _, errs = cli(t, "tools", "bucket", "upload", folderYAML(third), "--path="+second, `--label=cluster="z"`)
	require.Equal(t, exitOK, code, errs)
	_, out, _ = cli(t, "tools", "bucket", "ls", folderYAML(third))
	require.Equal(t, 3, strings.Count(out, `{cluster="z"}`), out)

	rewrite := []string{"--id=" + testID(1), "--rewrite.to-delete-config=[{matchers: up}]", "--tmp.dir=" + t.TempDir()}
	code, out, errs = c.run("bucket", "rewrite", rewrite...)
	require.Equal(t, exitUsage, code, "off a terminal it wants --yes")
	require.Regexp(t, testID(1)+` +\S{26} +2 +1 +0 +960 +480`, out)
	require.Contains(t, errs, "nothing was done")
	_, out, _ = c.run("bucket", "ls")
	require.Equal(t, 4, strings.Count(out, "\n"))
	code, _, errs = c.run("bucket", "rewrite", append(rewrite, "--yes")...)
	require.Equal(t, exitOK, code, errs)
	_, out, _ = c.run("bucket", "ls", "--exclude-delete", "-o", "template={{.Series}} {{.Source}}")
	require.Contains(t, out, "1 bucket.rewrite")

	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"second":  {[]string{"replicate"}, "--objstore-to.config-file: a bucket is needed"},
		"path":    {[]string{"upload"}, "--path: give the folder"},
		"label":   {[]string{"upload", "--path=x", "--label=x"}, "--label"},
		"rules":   {[]string{"rewrite", "--id=" + testID(1)}, "give one of them"},
		"no ids":  {[]string{"rewrite", "--rewrite.to-delete-config=[{matchers: up}]"}, "--id: give the ULID"},
		"forever": {[]string{"replicate", to, "--no-single-run"}, "timer"},
	} {
		code, _, errs := c.run("bucket", tc.args[0], tc.args[1:]...)
		require.Equal(t, exitUsage, code, name)
		require.Contains(t, errs, tc.want, name)
	}
}

package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest"
)

func TestAllTakesTheFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	d, err := openAllDir(dir)
	require.NoError(t, err)
	_, err = openAllDir(dir)
	require.ErrorContains(t, err, "--data-dir="+dir+": in use by another process")
	require.NoError(t, d.Close())
	d, err = openAllDir(dir)
	require.NoError(t, err, "it was given back")
	require.NoError(t, d.Close())
}

// allArgs start `firnline all` where nothing else is.
func allArgs(dir string, args ...string) []string {
	return append([]string{"all", "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0", "--data-dir=" + dir}, args...)
}

func TestAllRefusesWhatIsWrong(t *testing.T) {
	inUse := filepath.Join(t.TempDir(), "used")
	require.NoError(t, os.Mkdir(inUse, 0o755))
	lock, _, err := fileutil.Flock(filepath.Join(inUse, "lock"))
	require.NoError(t, err)
	defer lock.Release()
	newer, damaged := t.TempDir(), t.TempDir()
	write(t, filepath.Join(newer, "version"), "2\n")
	write(t, filepath.Join(damaged, "version"), "\x00\x00")
	file := write(t, filepath.Join(t.TempDir(), "file"), "")
	bad := write(t, filepath.Join(t.TempDir(), "bad.yml"), "wrong: 1\nalso: 2\n")
	for name, tc := range map[string]struct {
		args []string
		code int
		want []string
	}{
		"newer":   {allArgs(newer), exitProblem, []string{"--data-dir=" + newer + ": the folder is of a newer version of firnline (layout 2, this one knows up to 1): start that version, or another folder"}},
		"damaged": {allArgs(damaged), exitProblem, []string{"version is damaged: it has no number"}},
		"in use":  {allArgs(inUse), exitProblem, []string{"--data-dir=" + inUse + ": in use by another process: stop that one, or give each a folder of its own"}},
		"no folder": {allArgs(filepath.Join(file, "data")), exitProblem,
			[]string{"--data-dir=" + filepath.Join(file, "data") + ": can't be written to: ", "make it writable for this user, or choose another folder"}},
		"empty": {allArgs(""), exitUsage, []string{"--data-dir is empty"}},
		"sidecar's flags": {allArgs(t.TempDir(), "--sidecar.tsdb.path=/prometheus", "--reloader.config-file=/p.yml"), exitUsage, []string{
			"--reloader.config-file is of the sidecar, and there is none without --prometheus.url", "--sidecar.tsdb.path is of the sidecar"}},
		"two buckets":    {allArgs(t.TempDir(), "--objstore.config={type: FILESYSTEM, config: {directory: /b}}", "--objstore.config-file=/b.yml"), exitUsage, []string{"--objstore.config and --objstore.config-file exclude each other"}},
		"left out":       {allArgs(t.TempDir(), "--ingest.role=router"), exitUsage, []string{"unknown flag: --ingest.role"}},
		"component's":    {allArgs(t.TempDir(), "--tsdb.path=/x"), exitUsage, []string{"unknown flag: --tsdb.path; did you mean \"--ingest.tsdb.path\" or \"--sidecar.tsdb.path\"?"}},
		"named as here":  {allArgs(t.TempDir(), "--prometheus.url=http://localhost:9090", "--compact.data-dir=", "--compact.memory=1MB"), exitUsage, []string{"--compact.memory=", "--compact.data-dir is empty"}},
		"met at work":    {allArgs(t.TempDir(), "--ingest.tsdb.path="+file), exitProblem, []string{"below --ingest.tsdb.path: can't be written to"}},
		"met by another": {allArgs(t.TempDir(), "--compact.data-dir="+file), exitProblem, []string{"--compact.data-dir=" + file + ": can't be written to"}},
		"store's folder": {allArgs(t.TempDir(), "--store.data-dir="+file), exitProblem, []string{"--store.data-dir=" + file + ": can't be written to"}},
		"every mistake":  {allArgs(t.TempDir(), "--log.level=loud", "--query.max-concurrent=0", "--compact.concurrency=0"), exitUsage, []string{"--log.level", "--query.max-concurrent", "--compact.concurrency"}},
		"files": {allArgs(t.TempDir(), "--receive.limits-config-file="+bad, "--retention.policy-file="+bad, "--objstore.config-file="+bad), exitUsage, []string{
			"  --receive.limits-config-file: " + bad + `:1: unknown key "wrong"`, "  --retention.policy-file: " + bad + ":1: field wrong not found",
			"  --objstore.config-file: " + bad + ": objstore config: line 1: unknown key wrong", "  --objstore.config-file: " + bad + ": objstore config: line 2: unknown key also",
		}},
		"no such address": {allArgs(t.TempDir(), "--http-address=10902"), exitUsage, []string{"--http-address: want host:port"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, errs := cli(t, tc.args...)
			require.Equal(t, tc.code, code, errs)
			for _, want := range tc.want {
				require.Contains(t, errs, want)
			}
		})
	}
}

func TestSharesOfMemory(t *testing.T) {
	var out strings.Builder
	for _, gib := range []float64{0.25, 0.5, 1, 2, 4, 8, 32, 128} {
		memory := uint64(gib * (1 << 30))
		fmt.Fprintf(&out, "%gGiB:", gib)
		for _, s := range shares() {
			fmt.Fprintf(&out, " %s=%s", s.flag, s.value(memory))
		}
		out.WriteByte('\n')
	}
	golden(t, filepath.Join("testdata", "all_shares.txt"), out.String())

	// The smallest machine's are good, too.
	var cfg ingest.Config
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	cfg.RegisterFlags(fs)
	for _, s := range shares() {
		if fs.Lookup(s.flag) != nil {
			require.NoError(t, fs.Set(s.flag, s.value(1<<28)))
		}
	}
	require.NoError(t, cfg.Validate())

	a := newAll()
	f := newFlags(a.all())
	require.NoError(t, size(f, 1<<30))
	require.Equal(t, "32MiB", f.effective()["index-cache-size"])
	require.Equal(t, "auto", f.set.Lookup("index-cache-size").DefValue)
}

// TestAll: it is ready soon on an empty folder, writes its own metrics into
// itself, and gives the folder back.
func TestAll(t *testing.T) {
	dir := t.TempDir()
	d := startDaemon(t, func(http string) []string {
		return []string{"all", "--http-address=" + http, "--grpc-address=127.0.0.1:0", "--data-dir=" + dir, "--self-scrape.interval=1s"}
	})
	var body string
	require.Eventually(t, func() bool {
		_, body, _ = d.get("/api/v1/query?query=up")
		return strings.Contains(body, `"job":"firnline"`)
	}, 2*time.Minute, 50*time.Millisecond)
	require.NotContains(t, body, `"ingest"`, "series look as they were pushed")
	_, body, _ = d.get("/api/v1/status/flags")
	require.Contains(t, body, `"ingest.tsdb.path":"`+filepath.Join(dir, "ingest")+`"`)
	require.Contains(t, body, `"query.replica-label":"ingest"`)
	_, body, _ = d.get("/api/v1/status/tsdb")
	require.Contains(t, body, "headStats")
	for path, want := range map[string]string{
		"/api/v1/stores": `"name":"store"`, "/api/v1/compact/status": `"status":"success"`, "/api/v1/ingest/ring": d.http[:9], "/api/v1/ingest/tenants": "success",
	} {
		_, body, _ = d.get(path)
		require.Contains(t, body, want, path)
	}
	require.NoError(t, d.Process.Signal(syscall.SIGTERM))
	require.Zero(t, d.ended(t))
	require.Contains(t, d.stderr.String(), "msg=stopped")
	require.Contains(t, d.stderr.String(), "/api/v1/write")
	require.Contains(t, d.stderr.String(), "component=compact ", "each part says who it is")
	again, err := openAllDir(dir)
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

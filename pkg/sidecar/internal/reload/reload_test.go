package reload

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/proctest"
)

func TestMain(m *testing.M) { proctest.Main(m) }

// target counts reloads and refuses them while told to.
type target struct {
	reloads atomic.Int64
	refuse  atomic.Bool
}

func (p *target) Reload(context.Context) error {
	p.reloads.Add(1)
	if p.refuse.Load() {
		return errors.New("prometheus says: bad configuration in line 3")
	}
	return nil
}

func (p *target) LastReload(context.Context) (time.Time, bool, error) { return time.Now(), true, nil }

type fixture struct {
	t      *testing.T
	dir    string
	cfg    Config
	target *target
	r      *Reloader

	looked     atomic.Int64 // how often it has asked for the time, as it does where nothing has changed
	complaints atomic.Int64 // lines of its log that are errors
}

// Write implements io.Writer, of its log.
func (f *fixture) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("level=ERROR")) {
		f.complaints.Add(1)
	}
	return len(line), nil
}

func start(t *testing.T, change func(*Config)) *fixture {
	dir := t.TempDir()
	f := &fixture{t: t, dir: dir, target: &target{}, cfg: Config{
		ConfigFile: filepath.Join(dir, "in.yml"), OutputFile: filepath.Join(dir, "out.yml"), RuleDirs: []string{filepath.Join(dir, "rules")},
		WatchInterval: model.Duration(time.Minute), PollInterval: model.Duration(5 * time.Millisecond), RetryInterval: model.Duration(5 * time.Millisecond),
		Method: MethodHTTP, ProcessName: "prometheus",
	}}
	require.NoError(t, os.Mkdir(f.cfg.RuleDirs[0], 0o755))
	change(&f.cfg)
	require.NoError(t, f.cfg.Validate())
	f.r = New(f.cfg, f.target, slog.New(slog.NewTextHandler(f, nil)), prometheus.NewRegistry())
	f.r.now = func() time.Time {
		f.looked.Add(1)
		return time.Now()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.r.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	return f
}

func (f *fixture) put(path, text string) {
	f.t.Helper()
	require.NoError(f.t, block.WriteFile(path, []byte(text)))
}

func (f *fixture) output() string {
	out, err := os.ReadFile(f.cfg.OutputFile)
	if err != nil {
		return err.Error()
	}
	return string(out)
}

func (f *fixture) eventually(ok func() bool) {
	f.t.Helper()
	require.Eventually(f.t, ok, 2*time.Minute, 2*time.Millisecond)
}

func (f *fixture) ok() float64 { return testutil.ToFloat64(f.r.metrics.success) }

// TestReload follows a configuration through changes good and bad.
// RELIABILITY K1
func TestReload(t *testing.T) {
	t.Setenv("FIRNLINE_TEST_CLUSTER", "eu-1")
	const good = "global: {external_labels: {cluster: eu-1}}"
	f := start(t, func(*Config) {})
	f.put(f.cfg.ConfigFile, "global: {external_labels: {cluster: $(FIRNLINE_TEST_CLUSTER)}}")
	f.eventually(func() bool { return f.output() == good && f.ok() == 1 })
	require.EqualValues(t, 1, f.target.reloads.Load())

	for name, bad := range map[string]string{
		"empty": "", "half written": "global: {external_labels: {clus", "unknown variable": "global: {a: $(FIRNLINE_TEST_NOT_SET)}", "no mapping": "just text",
	} {
		f.put(f.cfg.ConfigFile, bad)
		f.eventually(func() bool { return f.ok() == 0 })
		require.Equal(t, good, f.output(), "%s: the old one stays", name)
		require.EqualValues(t, 1, f.target.reloads.Load(), "%s: Prometheus is not told", name)
		f.put(f.cfg.ConfigFile, good)
		f.eventually(func() bool { return f.ok() == 1 })
	}

	f.put(f.cfg.ConfigFile, "global: {scrape_interval: 1s}")
	f.eventually(func() bool { return f.target.reloads.Load() == 2 && f.ok() == 1 })
	require.Contains(t, f.output(), "1s")

	rule := filepath.Join(f.cfg.RuleDirs[0], "a.yml")
	f.put(filepath.Join(f.dir, "a.yml"), "groups: []") // its temporary file would be one more rule file
	require.NoError(t, os.Rename(filepath.Join(f.dir, "a.yml"), rule))
	f.eventually(func() bool { return f.target.reloads.Load() == 3 })
	require.NoError(t, os.Remove(rule))
	f.eventually(func() bool { return f.target.reloads.Load() == 4 })
}

// TestRefused has Prometheus refuse a configuration for a while: it is tried again, and said.
// RELIABILITY K1
func TestRefused(t *testing.T) {
	f := start(t, func(*Config) {})
	f.target.refuse.Store(true)
	f.put(f.cfg.ConfigFile, "global: {}")
	f.eventually(func() bool { return f.target.reloads.Load() > 2 })
	require.Zero(t, f.ok())
	require.Positive(t, testutil.ToFloat64(f.r.metrics.failures))
	f.target.refuse.Store(false)
	f.eventually(func() bool { return f.ok() == 1 })
	require.Positive(t, testutil.ToFloat64(f.r.metrics.successTime))
	n, looked := f.target.reloads.Load(), f.looked.Load()
	f.eventually(func() bool { return f.looked.Load() > looked+5 })
	require.Equal(t, n, f.target.reloads.Load(), "once it is taken, it is not told again")

	// What was refused is taken back: the output must not keep it.
	f.target.refuse.Store(true)
	f.put(f.cfg.ConfigFile, "global: {bad: 1}")
	f.eventually(func() bool { return f.ok() == 0 })
	f.target.refuse.Store(false)
	f.put(f.cfg.ConfigFile, "global: {}")
	f.eventually(func() bool { return f.ok() == 1 && f.output() == "global: {}" })
}

// TestGzip unpacks a configuration, as the Prometheus operator mounts it.
func TestGzip(t *testing.T) {
	f := start(t, func(*Config) {})
	var packed bytes.Buffer
	zw := gzip.NewWriter(&packed)
	_, err := zw.Write([]byte("global: {scrape_interval: 7s}"))
	require.NoError(t, err)
	require.NoError(t, zw.Close())
	f.put(f.cfg.ConfigFile, packed.String()[:packed.Len()-4])
	f.eventually(func() bool { return f.complaints.Load() > 1 })
	require.Zero(t, f.target.reloads.Load(), "half a file is none")
	f.put(f.cfg.ConfigFile, packed.String())
	f.eventually(func() bool { return f.output() == "global: {scrape_interval: 7s}" })
}

// TestLinkedRules follows links as Kubernetes swaps them when a ConfigMap changes.
func TestLinkedRules(t *testing.T) {
	f := start(t, func(c *Config) { c.ConfigFile, c.OutputFile = "", "" })
	dir := f.cfg.RuleDirs[0]
	for i, version := range []string{"..v1", "..v2"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, version), 0o755))
		f.put(filepath.Join(dir, version, "a.yml"), strings.Repeat("groups: []\n", i+1))
		require.NoError(t, os.Symlink(version, filepath.Join(dir, "..tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
		if i == 0 {
			require.NoError(t, os.Symlink("..data/a.yml", filepath.Join(dir, "a.yml")))
		}
		f.eventually(func() bool { return f.target.reloads.Load() > int64(i) })
	}
}

// TestSignal finds the process by the name of its executable.
func TestSignal(t *testing.T) {
	proc := t.TempDir()
	for pid, cmdline := range map[string]string{"10": "/bin/prometheus\x00--a", "11": "/bin/other\x00prometheus", "self": "prometheus", "12": ""} {
		require.NoError(t, os.Mkdir(filepath.Join(proc, pid), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(proc, pid, "cmdline"), []byte(cmdline), 0o600))
	}
	pids, err := findProcesses(proc, "prometheus")
	require.NoError(t, err)
	require.Equal(t, []int{10}, pids)
	require.ErrorContains(t, signalProcess(proc, "absent"), "0 processes")
}

package sidecar

import (
	"flag"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/sidecar/internal/promapi"
)

// TestFlags has the flags and defaults that Thanos' sidecar has.
func TestFlags(t *testing.T) {
	var cfg Config
	fs := flag.NewFlagSet("sidecar", flag.ContinueOnError)
	cfg.RegisterFlags(fs)
	for name, want := range map[string]string{
		"prometheus.url": "http://localhost:9090", "prometheus.ready_timeout": "10m", "prometheus.get_config_interval": "30s",
		"prometheus.get_config_timeout": "30s", "prometheus.http-client": "", "prometheus.http-client-file": "", "tsdb.path": "./data",
		"reloader.config-file": "", "reloader.config-envsubst-file": "", "reloader.watch-interval": "3m", "reloader.retry-interval": "5s",
		"reloader.method": "http", "reloader.process-name": "prometheus", "shipper.upload-compacted": "false",
		"shipper.meta-file-name": "thanos.shipper.json", "shipper.upload-concurrency": "0", "shipper.ignore-unequal-block-size": "false",
		"store.limits.request-series": "0", "store.limits.request-samples": "0",
	} {
		f := fs.Lookup(name)
		require.NotNil(t, f, name)
		require.Equal(t, want, f.DefValue, name)
	}
	require.NotNil(t, fs.Lookup("reloader.rule-dir"))
	require.NotNil(t, fs.Lookup("min-time"))
	require.NoError(t, cfg.Validate())
}

// TestValidate names the flag of each mistake, all at once.
func TestValidate(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "absent")
	for want, args := range map[string][]string{
		"--prometheus.url":               {"--prometheus.url=localhost:9090"},
		"--tsdb.path":                    {"--tsdb.path="},
		"--prometheus.http-client: yaml": {"--prometheus.http-client=nonsense: 1"},
		"line 2: environment variable FIRNLINE_TEST_NOT_SET": {"--prometheus.http-client=basic_auth:\n  password: $(FIRNLINE_TEST_NOT_SET)"},
		"--prometheus.http-client-file: open " + absent:      {"--prometheus.http-client-file=" + absent},
		"give one of them":                  {"--prometheus.http-client=a", "--prometheus.http-client-file=b"},
		"--prometheus.max-concurrent-reads": {"--prometheus.max-concurrent-reads=0"},
		"--store.limits.request-series":     {"--store.limits.request-series=-1"},
		"--reloader.method":                 {"--reloader.method=carrier-pigeon"},
		"--reloader.config-envsubst-file":   {"--reloader.config-envsubst-file=x"},
		"--shipper.meta-file-name":          {"--shipper.meta-file-name=a/b"},
	} {
		t.Run(want, func(t *testing.T) {
			var cfg Config
			fs := flag.NewFlagSet("sidecar", flag.ContinueOnError)
			cfg.RegisterFlags(fs)
			require.NoError(t, fs.Parse(args))
			require.ErrorContains(t, cfg.Validate(), want)
		})
	}
}

// TestHTTPClient sends what the HTTP client configuration says, with the password out of the environment.
func TestHTTPClient(t *testing.T) {
	t.Setenv("FIRNLINE_TEST_PASSWORD", "secret")
	cfg := defaults(t).Prometheus
	cfg.HTTPClientFile = filepath.Join(t.TempDir(), "client.yml")
	require.NoError(t, os.WriteFile(cfg.HTTPClientFile, []byte("basic_auth: {username: me, password: $(FIRNLINE_TEST_PASSWORD)}"), 0o600))
	got, err := cfg.clientConfig()
	require.NoError(t, err)
	require.Equal(t, "me", got.BasicAuth.Username)
	require.Equal(t, "secret", string(got.BasicAuth.Password))
	require.True(t, got.FollowRedirects, "what is not given has Prometheus' default")
}

// TestMinTime keeps older data from being served and announced.
func TestMinTime(t *testing.T) {
	p := newFakeProm(t)
	cfg := testCfg(t, p.URL)
	require.NoError(t, cfg.MinTime.Set("2026-01-31T00:00:00Z"))
	s := ready(t, run(t, cfg)).Services().Store
	info, err := s.Info(t.Context())
	require.NoError(t, err)
	at := time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC).UnixMilli()
	require.Equal(t, at, info.Mint)
	require.Equal(t, int64(math.MaxInt64), info.Maxt)
	sel := selection("a")
	sel.Maxt = at - 1
	got, err := readAll(t, s, sel)
	require.NoError(t, err)
	require.Empty(t, got)
	require.Zero(t, p.count("/api/v1/read"), "Prometheus need not be asked")

	require.NoError(t, cfg.MinTime.Set("2000-01-01T00:00:00Z"))
	info, err = ready(t, run(t, cfg)).Services().Store.Info(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(1_700_000_000_000), info.Mint, "Prometheus has nothing older")
}

// TestMismatches compares flags.
func TestMismatches(t *testing.T) {
	const state = "/data/thanos.shipper.json"
	two, day := model.Duration(2*time.Hour), model.Duration(24*time.Hour)
	for _, c := range []struct {
		name  string
		flags promapi.Flags
		want  []string // a part of each
	}{
		{"equal durations", promapi.Flags{StoragePath: "/data", MinBlockDuration: two, MaxBlockDuration: two}, nil},
		{"delay file", promapi.Flags{StoragePath: "/data/", MinBlockDuration: two, MaxBlockDuration: day, DelayCompactFile: state}, nil},
		{"relative paths", promapi.Flags{StoragePath: "data/", MaxBlockDuration: day, DelayCompactFile: "./data/thanos.shipper.json"}, nil},
		{"other delay file", promapi.Flags{StoragePath: "/data", MinBlockDuration: two, MaxBlockDuration: two, DelayCompactFile: "/other"}, []string{"delay-compact-file.path is /other"}},
		{"neither", promapi.Flags{StoragePath: "/data", MinBlockDuration: two, MaxBlockDuration: day}, []string{"--storage.tsdb.delay-compact-file.path=" + state}},
		{"other folder", promapi.Flags{StoragePath: "/prom", MinBlockDuration: two, MaxBlockDuration: day}, []string{"--storage.tsdb.path is /prom", "min-block-duration (2h)"}},
		{"old Prometheus", promapi.Flags{}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			from := source{dir: "/data", stateFile: state}
			got := from.mismatches(c.flags, "/")
			require.Len(t, got, len(c.want))
			for i := range c.want {
				require.Contains(t, got[i], c.want[i])
			}
			from.ignoreSize = true
			for _, f := range from.mismatches(c.flags, "/") {
				require.NotContains(t, f, "max-block-duration", "it is wanted")
			}
		})
	}
}

package sidecar

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/sidecar/internal/reload"
)

// TestReloadPrometheus has a real Prometheus take a changed configuration, told by either way.
func TestReloadPrometheus(t *testing.T) {
	t.Setenv("FIRNLINE_TEST_CLUSTER", "eu-1")
	for _, method := range []string{reload.MethodHTTP, reload.MethodSignal} {
		t.Run(method, func(t *testing.T) {
			p := newPrometheus(t, testConfig)
			// A name that no other process on the machine has.
			name := "prometheus-" + filepath.Base(filepath.Dir(p.dir))
			require.NoError(t, os.Symlink(p.binary, filepath.Join(p.dir, name)))
			p.binary = filepath.Join(p.dir, name)
			p.start()

			cfg := testCfg(t, p.url)
			cfg.Reloader.ConfigFile, cfg.Reloader.OutputFile = filepath.Join(p.dir, "source.yml"), p.config
			cfg.Reloader.Method, cfg.Reloader.ProcessName = method, name
			require.NoError(t, cfg.Reloader.PollInterval.Set("20ms"))
			require.NoError(t, cfg.Reloader.RetryInterval.Set("20ms"))
			require.NoError(t, os.WriteFile(cfg.Reloader.ConfigFile, []byte("global: {external_labels: {cluster: $(FIRNLINE_TEST_CLUSTER), via: "+method+"}}\n"), 0o600))
			s := run(t, cfg)
			p.eventually("Prometheus has the new labels", func() bool { return s.watcher.labels().Get("via") == method })
			require.Equal(t, "eu-1", s.watcher.labels().Get("cluster"))
		})
	}
}

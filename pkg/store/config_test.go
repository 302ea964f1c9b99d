package store

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestByteSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "512": 512, "64KiB": 64 << 10, "64KB": 64 << 10, "250MB": 250 << 20, "2GB": 2 << 30, "1.5MiB": 3 << 19, "1T": 1 << 40, "7B": 7,
	} {
		var b ByteSize
		require.NoError(t, b.Set(in), in)
		require.EqualValues(t, want, b, in)
		var again ByteSize
		require.NoError(t, again.Set(b.String()))
		require.Equal(t, b, again)
	}
	for _, in := range []string{"", "MB", "-1", "5XB", "1e40", "ten", "5 parsecs", "NaN"} {
		var b ByteSize
		require.Error(t, b.Set(in), in)
	}
}

func TestConfigValidate(t *testing.T) {
	good := newConfig(t)
	require.NoError(t, good.Validate())
	for flag, change := range map[string]func(*Config){
		"--data-dir":            func(c *Config) { c.DataDir = "" },
		"--sync-block-duration": func(c *Config) { c.SyncInterval = 0 },
		"--store.index-header-lazy-download-strategy": func(c *Config) { c.HeaderDownload = "sometimes" },
		"--store.grpc.series-max-concurrency":         func(c *Config) { c.MaxConcurrency = 0 },
		"--store.limits.request-series":               func(c *Config) { c.RequestSeries = -1 },
		"--debug.series-batch-size":                   func(c *Config) { c.SeriesBatch = 0 },
		"--block-discovery-strategy":                  func(c *Config) { c.Blocks.Strategy = "x" },
	} {
		cfg := newConfig(t)
		change(&cfg)
		require.ErrorContains(t, cfg.Validate(), flag)
	}
}

func TestIndexCacheConfig(t *testing.T) {
	for yaml, want := range map[string]ByteSize{
		"": 250 << 20,
		"type: IN-MEMORY\nconfig: {max_size: 1GB, max_item_size: 100MB}": 1 << 30,
		"type: IN-MEMORY": 250 << 20,
		"type: in-memory\nttl: 24h\nenabled_items: [Postings]": 250 << 20,
	} {
		cfg := newConfig(t, "--index-cache.config="+yaml)
		got, err := cfg.indexCacheSize()
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for yaml, want := range map[string]string{
		"type: MEMCACHED": "type \"MEMCACHED\" is not served, only IN-MEMORY",
		"type: MEMCACHED\nconfig: {addresses: [a:1]}": "type \"MEMCACHED\" is not served, only IN-MEMORY",
		"type: IN-MEMORY\nconfig:\n  max_sice: 1GB":   "line 3",
		"type: IN-MEMORY\nconfig: {max_size: a lot}":  "max_size",
	} {
		cfg := newConfig(t, "--index-cache.config="+yaml)
		require.ErrorContains(t, cfg.Validate(), "--index-cache.config")
		require.ErrorContains(t, cfg.Validate(), want)
	}
	cfg := newConfig(t, "--index-cache.config-file=/nowhere/at/all")
	require.ErrorContains(t, cfg.Validate(), "/nowhere/at/all")
}

// The YAML of the index cache may have environment variables, as that of a bucket.
func TestIndexCacheConfigFromEnvironment(t *testing.T) {
	t.Setenv("FIRNLINE_TEST_CACHE", "7MB")
	cfg := newConfig(t, "--index-cache.config={type: IN-MEMORY, config: {max_size: $(FIRNLINE_TEST_CACHE)}}")
	size, err := cfg.indexCacheSize()
	require.NoError(t, err)
	require.EqualValues(t, 7<<20, size)
	cfg = newConfig(t, "--index-cache.config={type: $(FIRNLINE_UNSET)}")
	require.ErrorContains(t, cfg.Validate(), "FIRNLINE_UNSET is not set")
}

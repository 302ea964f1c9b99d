package store

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/firnline/firnline/pkg/content"
)

// cacheConfig is Thanos' YAML for an index cache, as far as it is served here.
type cacheConfig struct {
	Type         string   `yaml:"type"`
	EnabledItems []string `yaml:"enabled_items"` // accepted: what is worth keeping is decided by its cost
	TTL          string   `yaml:"ttl"`           // accepted: blocks don't change, so nothing cached grows old
	Config       struct {
		MaxSize     string `yaml:"max_size"`
		MaxItemSize string `yaml:"max_item_size"` // accepted: an item never takes more than a quarter of the cache
	} `yaml:"config"`
}

// indexCacheSize is --index-cache-size or what the index cache's YAML says instead.
func (c *Config) indexCacheSize() (ByteSize, error) {
	text, flag, err := content.Of("index-cache.config", c.IndexCacheConfig, c.IndexCacheConfigFile)
	if err != nil || text == nil {
		return c.IndexCacheSize, err
	}
	if err := checkCacheType(text); err != nil {
		return 0, fmt.Errorf("%s: %w", flag, err)
	}
	var parsed cacheConfig
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&parsed); err != nil {
		return 0, fmt.Errorf("%s: %w", flag, err)
	}
	if parsed.Config.MaxSize == "" {
		return c.IndexCacheSize, nil
	}
	var size ByteSize
	if err := size.Set(parsed.Config.MaxSize); err != nil {
		return 0, fmt.Errorf("%s: max_size: %w", flag, err)
	}
	return size, nil
}

// checkCacheType comes before other keys are looked at, since those of another
// type would only distract from it. Thanos takes types in lower case as well.
func checkCacheType(text []byte) error {
	var parsed struct {
		Type string `yaml:"type"`
	}
	if err := yaml.Unmarshal(text, &parsed); err != nil {
		return err
	}
	if !strings.EqualFold(parsed.Type, "IN-MEMORY") {
		return fmt.Errorf("type %q is not served, only IN-MEMORY", parsed.Type)
	}
	return nil
}

package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"go.yaml.in/yaml/v3"
)

// cacheConfig is Thanos' YAML for an index cache, as far as it is served here.
type cacheConfig struct {
	Type   string `yaml:"type"`
	Config struct {
		MaxSize     string `yaml:"max_size"`
		MaxItemSize string `yaml:"max_item_size"` // accepted: an item never takes more than a quarter of the cache
	} `yaml:"config"`
}

// indexCacheSize is --index-cache-size or what the index cache's YAML says instead.
func (c *Config) indexCacheSize() (ByteSize, error) {
	content, flag := c.IndexCacheConfig, "--index-cache.config"
	if c.IndexCacheConfigFile != "" {
		if content != "" {
			return 0, errors.New("--index-cache.config and --index-cache.config-file exclude each other; give one")
		}
		b, err := os.ReadFile(c.IndexCacheConfigFile)
		if err != nil {
			return 0, fmt.Errorf("--index-cache.config-file: %w", err)
		}
		content, flag = string(b), "--index-cache.config-file "+c.IndexCacheConfigFile
	}
	if content == "" {
		return c.IndexCacheSize, nil
	}
	var parsed cacheConfig
	dec := yaml.NewDecoder(bytes.NewReader([]byte(content)))
	dec.KnownFields(true)
	if err := dec.Decode(&parsed); err != nil {
		return 0, fmt.Errorf("%s: %w", flag, err)
	}
	if parsed.Type != "IN-MEMORY" {
		return 0, fmt.Errorf("%s: type %q is not served, only IN-MEMORY", flag, parsed.Type)
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

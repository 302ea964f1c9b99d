package promapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"go.yaml.in/yaml/v3"
)

// ExternalLabels returns global.external_labels of the configuration in force;
// empty when there are none.
func (c *Client) ExternalLabels(ctx context.Context) (labels.Labels, error) {
	q := call{method: http.MethodGet, path: "/api/v1/status/config"}
	var data struct {
		YAML string `json:"yaml"`
	}
	if _, err := c.get(ctx, q, &data); err != nil {
		return labels.EmptyLabels(), err
	}
	var cfg struct {
		Global struct {
			ExternalLabels map[string]string `yaml:"external_labels"`
		} `yaml:"global"`
	}
	if err := yaml.Unmarshal([]byte(data.YAML), &cfg); err != nil {
		return labels.EmptyLabels(), fmt.Errorf("prometheus %s: %s: configuration: %w", c.URL(), q, err)
	}
	return labels.FromMap(cfg.Global.ExternalLabels), nil
}

// Flags are those command line flags of Prometheus that matter for shipping
// its blocks. A flag that this version doesn't have is zero.
type Flags struct {
	StoragePath      string // --storage.tsdb.path
	MinBlockDuration model.Duration
	MaxBlockDuration model.Duration
	DelayCompactFile string // --storage.tsdb.delay-compact-file.path
	NoExemplars      bool   // --enable-feature is known and has no exemplar-storage
}

// Flags returns the flags Prometheus runs with.
func (c *Client) Flags(ctx context.Context) (Flags, error) {
	q := call{method: http.MethodGet, path: "/api/v1/status/flags"}
	var data map[string]string
	if _, err := c.get(ctx, q, &data); err != nil {
		return Flags{}, err
	}
	f := Flags{StoragePath: data["storage.tsdb.path"], DelayCompactFile: data["storage.tsdb.delay-compact-file.path"]}
	if features, known := data["enable-feature"]; known {
		f.NoExemplars = !slices.Contains(strings.Split(features, ","), "exemplar-storage")
	}
	for name, to := range map[string]*model.Duration{
		"storage.tsdb.min-block-duration": &f.MinBlockDuration,
		"storage.tsdb.max-block-duration": &f.MaxBlockDuration,
	} {
		if data[name] == "" {
			continue
		}
		d, err := model.ParseDuration(data[name])
		if err != nil {
			return Flags{}, fmt.Errorf("prometheus %s: %s: %s: %w", c.URL(), q, name, err)
		}
		*to = d
	}
	return f, nil
}

// Version returns the version Prometheus tells, such as 3.16.0.
func (c *Client) Version(ctx context.Context) (string, error) {
	var data struct {
		Version string `json:"version"`
	}
	_, err := c.get(ctx, call{method: http.MethodGet, path: "/api/v1/status/buildinfo"}, &data)
	return data.Version, err
}

// Runtime is what Prometheus tells of its process.
type Runtime struct {
	StartTime           time.Time `json:"startTime"`
	WorkDir             string    `json:"CWD"`
	ReloadConfigSuccess bool      `json:"reloadConfigSuccess"`
	LastConfigTime      time.Time `json:"lastConfigTime"` // whole seconds
}

// Runtime returns what Prometheus tells of its process.
func (c *Client) Runtime(ctx context.Context) (Runtime, error) {
	var data Runtime
	_, err := c.get(ctx, call{method: http.MethodGet, path: "/api/v1/status/runtimeinfo"}, &data)
	return data, err
}

// ErrNoTimestamp says that Prometheus does not know its lowest timestamp (yet):
// it has no data, or not the metric.
var ErrNoTimestamp = errors.New("lowest timestamp is unknown")

// lowestMetric is the gauge that tells since when there is data, in seconds.
const lowestMetric = "prometheus_tsdb_lowest_timestamp_seconds "

// LowestTimestamp returns the time of the oldest sample, in ms.
func (c *Client) LowestTimestamp(ctx context.Context) (int64, error) {
	q := call{method: http.MethodGet, path: "/metrics"}
	resp, err := c.do(ctx, q)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(c.bounded(resp.Body))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), lowestMetric)
		if !ok {
			continue
		}
		seconds, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil {
			return 0, c.garbled(ctx, q, err)
		}
		// An empty head tells math.MaxInt64 ms.
		if math.IsNaN(seconds) || math.Abs(seconds) > 1e15 {
			return 0, ErrNoTimestamp
		}
		return int64(seconds * 1000), nil
	}
	if err := lines.Err(); err != nil {
		return 0, c.garbled(ctx, q, err)
	}
	return 0, ErrNoTimestamp
}

// Reload makes Prometheus read its configuration again (POST /-/reload, which
// needs its --web.enable-lifecycle). The error carries what Prometheus says.
func (c *Client) Reload(ctx context.Context) error {
	resp, err := c.do(ctx, call{method: http.MethodPost, path: "/-/reload"})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

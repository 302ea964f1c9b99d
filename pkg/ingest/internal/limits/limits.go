// Package limits is what a tenant of ingest may send, and how it is kept: one
// struct that a file gives for each tenant, in Thanos' format with keys of our
// own beside it. It decides nothing itself.
package limits

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/firnline/firnline/pkg/ingest/internal/wire"
	"github.com/firnline/firnline/pkg/tenant"
)

// Limits is what holds for one tenant. 0 means no limit unless its text says
// otherwise. The tag doc is the text of the reference; Reference lists them.
type Limits struct {
	Request            Request           `yaml:"request" doc:"Limits of one request."`
	HeadSeriesLimit    int               `yaml:"head_series_limit" doc:"Active series of the tenant. Series beyond it are answered 429; those that are there go on."`
	MaxSeriesPerMetric int               `yaml:"max_series_per_metric" doc:"Active series of one metric."`
	SamplesPerSecond   float64           `yaml:"samples_per_second" doc:"Samples taken each second, on the average, by each router. Requests beyond it are answered 429."`
	SamplesBurst       int               `yaml:"samples_burst" doc:"Samples taken at once above the average. 0: what samples_per_second allows in 10 seconds. A larger request passes when nothing came for a while."`
	MaxLabels          int               `yaml:"max_labels" doc:"Labels of a series, its name included."`
	MaxLabelNameBytes  int               `yaml:"max_label_name_bytes" doc:"Bytes of a label's name."`
	MaxLabelValueBytes int               `yaml:"max_label_value_bytes" doc:"Bytes of a label's value."`
	OutOfOrderWindow   model.Duration    `yaml:"out_of_order_window" doc:"How much older than the newest sample of the tenant a sample may be that comes late. 0: what --tsdb.out-of-order.time-window says."`
	MaxFuture          model.Duration    `yaml:"max_future" doc:"How far ahead of our clock a sample's time may be."`
	StartTimestamps    bool              `yaml:"start_timestamps" doc:"Keep start timestamps of samples. Blocks that hold some can't be read by Thanos."`
	HA                 HA                `yaml:"ha" doc:"Pairs of senders that send the same."`
	RelabelConfigs     []*relabel.Config `yaml:"relabel_configs" doc:"Relabelling of series, as in Prometheus; before tenant labels and pairs are looked at."`
	Drop               []Selector        `yaml:"drop" doc:"Selectors, such as {__name__=~\"go_.*\"}, of series that are not kept; after relabelling."`
	ShardSize          int               `yaml:"shard_size" doc:"Over how many nodes of the ring the tenant's series are spread. 0: all."`
	OTLP               wire.OTLP         `yaml:"otlp" doc:"How OTLP metrics become series; the names are those of Prometheus' configuration."`
	ActiveSeries       Matchers          `yaml:"active_series" doc:"Names with selectors each, whose active series are counted, at most 64."`
}

// Request is limits of one request.
type Request struct {
	SizeBytesLimit int64 `yaml:"size_bytes_limit" doc:"Bytes of its body as sent."`
	SeriesLimit    int   `yaml:"series_limit" doc:"Series in it."`
	SamplesLimit   int   `yaml:"samples_limit" doc:"Samples in it."`
}

// HA says how pairs of senders are told, of which only one is taken.
type HA struct {
	Enabled         bool           `yaml:"enabled" doc:"Take only one sender of those that have the same cluster label."`
	ClusterLabel    string         `yaml:"cluster_label" doc:"Label that names the pair. It stays."`
	ReplicaLabel    string         `yaml:"replica_label" doc:"Label that tells the senders of a pair apart. It is removed."`
	FailoverTimeout model.Duration `yaml:"failover_timeout" doc:"When the sender that is taken has been silent for this long, another one takes over."`
	UpdateInterval  model.Duration `yaml:"update_interval" doc:"How often routers tell each other that a sender is alive. Well below failover_timeout."`
	MaxClusters     int            `yaml:"max_clusters" doc:"Pairs of the tenant."`
}

// maxMatchers is how many selectors of active series fit in a series' record.
const maxMatchers = 64

// Defaults is what holds where nothing is configured.
func Defaults() Limits {
	return Limits{
		MaxLabels:          64,
		MaxLabelNameBytes:  1 << 10,
		MaxLabelValueBytes: 4 << 10,
		OutOfOrderWindow:   0,
		MaxFuture:          model.Duration(10 * time.Minute),
		OTLP:               wire.DefaultOTLP(),
		HA: HA{
			ClusterLabel:    "cluster",
			ReplicaLabel:    "__replica__",
			FailoverTimeout: model.Duration(30 * time.Second),
			UpdateInterval:  model.Duration(10 * time.Second),
			MaxClusters:     100,
		},
	}
}

// Burst is the number of samples that may come at once.
func (l *Limits) Burst() int {
	if l.SamplesBurst > 0 {
		return l.SamplesBurst
	}
	return max(1, int(10*l.SamplesPerSecond))
}

// Validate names all that can't be right.
func (l *Limits) Validate() error {
	var errs []error
	for _, n := range []struct {
		key   string
		value int64
	}{
		{"request.size_bytes_limit", l.Request.SizeBytesLimit},
		{"request.series_limit", int64(l.Request.SeriesLimit)},
		{"request.samples_limit", int64(l.Request.SamplesLimit)},
		{"head_series_limit", int64(l.HeadSeriesLimit)},
		{"max_series_per_metric", int64(l.MaxSeriesPerMetric)},
		{"samples_per_second", int64(min(0, l.SamplesPerSecond))},
		{"samples_burst", int64(l.SamplesBurst)},
		{"max_labels", int64(l.MaxLabels)},
		{"max_label_name_bytes", int64(l.MaxLabelNameBytes)},
		{"max_label_value_bytes", int64(l.MaxLabelValueBytes)},
		{"ha.max_clusters", int64(l.HA.MaxClusters)},
		{"shard_size", int64(l.ShardSize)},
	} {
		if n.value < 0 {
			errs = append(errs, fmt.Errorf("%s: %d: give 0 for no limit, or more", n.key, n.value))
		}
	}
	for i, c := range l.RelabelConfigs {
		if c == nil {
			errs = append(errs, fmt.Errorf("relabel_configs: rule %d is empty", i+1))
		} else if err := c.Validate(model.UTF8Validation); err != nil {
			errs = append(errs, fmt.Errorf("relabel_configs: rule %d: %w", i+1, err))
		}
	}
	if len(l.ActiveSeries) > maxMatchers {
		errs = append(errs, fmt.Errorf("active_series: %d names, at most %d", len(l.ActiveSeries), maxMatchers))
	}
	if err := l.OTLP.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("otlp: %w", err))
	}
	return errors.Join(append(errs, l.HA.validate())...)
}

func (h *HA) validate() error {
	if !h.Enabled {
		return nil
	}
	var errs []error
	if h.ClusterLabel == "" || h.ReplicaLabel == "" || h.ClusterLabel == h.ReplicaLabel {
		errs = append(errs, fmt.Errorf("ha: cluster_label %q and replica_label %q: give two names", h.ClusterLabel, h.ReplicaLabel))
	}
	if h.UpdateInterval <= 0 || h.FailoverTimeout < 2*h.UpdateInterval {
		errs = append(errs, fmt.Errorf("ha: failover_timeout %s: give at least twice update_interval %s, which is more than 0", h.FailoverTimeout, h.UpdateInterval))
	}
	return errors.Join(errs...)
}

// Form is how the file of limits is read: Thanos' write.{global, default, tenants}.
func Form() tenant.Form[Limits] {
	return tenant.Form[Limits]{Component: "ingest_limits", Section: "write", Defaults: Defaults}
}

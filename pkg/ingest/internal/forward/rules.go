package forward

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/grafana/dskit/flagext"

	"github.com/firnline/firnline/pkg/tenant"
)

// Rules is the content of --ingest.forward-config: where selected series are sent on to.
type Rules struct {
	Endpoints []Endpoint `yaml:"endpoints"`
}

// Endpoint is a receiver of remote write and what it is sent.
type Endpoint struct {
	Name    string            `yaml:"name"` // of the queue's folder and in metrics
	URL     *commonconfig.URL `yaml:"url"`
	Tenants []tenant.ID       `yaml:"tenants"` // empty: all
	// Match are series selectors; a series that one of them selects is sent. Empty: all series.
	Match               []string          `yaml:"match"`
	WriteRelabelConfigs []*relabel.Config `yaml:"write_relabel_configs"`

	ProtobufMessage remoteapi.WriteMessageType    `yaml:"protobuf_message"` // remote write 1.0 or 2.0
	Headers         map[string]string             `yaml:"headers"`
	TenantHeader    string                        `yaml:"tenant_header"` // gets the tenant of each request; empty: none
	HTTP            commonconfig.HTTPClientConfig `yaml:",inline"`
	Timeout         model.Duration                `yaml:"remote_timeout"`
	Queue           QueueRules                    `yaml:"queue"`

	matchers [][]*labels.Matcher
	text     string // as written: rules of the same text are the same
}

// shardBytes is how long the queue of one shard may be.
func (e *Endpoint) shardBytes() int64 { return int64(e.Queue.MaxBytes) / int64(e.Queue.Shards) }

// QueueRules bound an endpoint's queue on disk and how it is emptied.
type QueueRules struct {
	MaxBytes          flagext.Bytes  `yaml:"max_bytes"`            // of all shards; the oldest goes first
	Shards            int            `yaml:"shards"`               // sent at the same time; a series stays in one
	MaxSamplesPerSend int            `yaml:"max_samples_per_send"` //
	BatchSendDeadline model.Duration `yaml:"batch_send_deadline"`  // how long samples may wait for more
	MinBackoff        model.Duration `yaml:"min_backoff"`
	MaxBackoff        model.Duration `yaml:"max_backoff"`
}

// UnmarshalYAML fills in the defaults.
func (e *Endpoint) UnmarshalYAML(n *yaml.Node) error {
	type plain Endpoint
	*e = Endpoint{
		ProtobufMessage: remoteapi.WriteV1MessageType,
		HTTP:            commonconfig.DefaultHTTPClientConfig,
		Timeout:         model.Duration(30 * time.Second),
		Queue: QueueRules{
			MaxBytes: 1 << 30, Shards: 4, MaxSamplesPerSend: 2000, BatchSendDeadline: model.Duration(time.Second),
			MinBackoff: model.Duration(100 * time.Millisecond), MaxBackoff: model.Duration(30 * time.Second),
		},
	}
	// A node decodes without asking for known fields, so its text is read once
	// more, on the line where it stands.
	text, err := yaml.Marshal(n)
	if err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	d := yaml.NewDecoder(io.MultiReader(strings.NewReader(strings.Repeat("\n", n.Line-1)), bytes.NewReader(text)))
	d.KnownFields(true)
	e.text = string(text)
	return d.Decode((*plain)(e))
}

var nameRE = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// ParseRules reads and checks rules; every error says where it is.
func ParseRules(content []byte, source string) (*Rules, error) {
	var r Rules
	d := yaml.NewDecoder(bytes.NewReader(content))
	d.KnownFields(true)
	if err := d.Decode(&r); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	var errs []error
	names := map[string]bool{}
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		if err := e.check(); err != nil {
			errs = append(errs, fmt.Errorf("%s: endpoint %d %q: %w", source, i+1, e.Name, err))
		}
		if names[e.Name] {
			errs = append(errs, fmt.Errorf("%s: endpoint %d: the name %q is taken; each has a queue of its own", source, i+1, e.Name))
		}
		names[e.Name] = true
	}
	return &r, errors.Join(errs...)
}

func (e *Endpoint) check() error {
	var errs []error
	wrong := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	wrong(nameRE.MatchString(e.Name), "name: want 1 to 64 letters, digits, _ and -, since it names a folder")
	wrong(e.URL != nil && e.URL.URL != nil && (e.URL.Scheme == "http" || e.URL.Scheme == "https"), "url: want http:// or https://")
	for _, id := range e.Tenants {
		if _, err := tenant.Parse(string(id)); err != nil {
			errs = append(errs, fmt.Errorf("tenants: %w", err))
		}
	}
	for _, s := range e.Match {
		ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("match %q: %w", s, err))
		}
		e.matchers = append(e.matchers, ms)
	}
	for _, c := range e.WriteRelabelConfigs {
		if err := c.Validate(model.UTF8Validation); err != nil {
			errs = append(errs, fmt.Errorf("write_relabel_configs: %w", err))
		}
	}
	wrong(e.ProtobufMessage.Validate() == nil, "protobuf_message: want %s or %s", remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType)
	if err := e.HTTP.Validate(); err != nil {
		errs = append(errs, err)
	}
	q := e.Queue
	wrong(e.Timeout > 0, "remote_timeout: must be greater than 0")
	wrong(q.Shards >= 1 && q.Shards <= 64, "queue.shards: want 1 to 64, got %d", q.Shards)
	wrong(int64(q.MaxBytes) >= int64(q.Shards)*2*segmentBytes, "queue.max_bytes: want at least %d for each shard, got %s", 2*segmentBytes, &q.MaxBytes)
	wrong(q.MaxSamplesPerSend >= 1, "queue.max_samples_per_send: want at least 1, got %d", q.MaxSamplesPerSend)
	wrong(q.BatchSendDeadline >= 0, "queue.batch_send_deadline: want 0 or more")
	wrong(q.MinBackoff > 0 && q.MaxBackoff >= q.MinBackoff, "queue: want 0 < min_backoff ≤ max_backoff")
	return errors.Join(errs...)
}

// wants tells whether series of a tenant may be sent.
func (e *Endpoint) wants(id tenant.ID) bool {
	return len(e.Tenants) == 0 || slices.Contains(e.Tenants, id)
}

// selects returns the labels under which a series is sent; empty: it is not.
func (e *Endpoint) selects(lset labels.Labels) labels.Labels {
	if len(e.matchers) > 0 && !slices.ContainsFunc(e.matchers, func(ms []*labels.Matcher) bool { return matches(ms, lset) }) {
		return labels.EmptyLabels()
	}
	b := labels.NewBuilder(lset)
	if !relabel.ProcessBuilder(b, e.WriteRelabelConfigs...) {
		return labels.EmptyLabels()
	}
	return b.Labels()
}

func matches(ms []*labels.Matcher, lset labels.Labels) bool {
	for _, m := range ms {
		if !m.Matches(lset.Get(m.Name)) {
			return false
		}
	}
	return true
}

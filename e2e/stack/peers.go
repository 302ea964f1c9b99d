package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The credentials of every MinIO we start.
const (
	AccessKey = "firnline"
	SecretKey = "firnline-secret"
)

// Peer returns the path of a program that `make deps` has built. dir is its
// folder in the cache without the version: "prometheus" or "minio".
func Peer(dir, name string) (string, error) {
	root := os.Getenv("FIRNLINE_PEERS")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the cache of peers: %w", err)
		}
		root = filepath.Join(cache, "firnline")
	}
	found, err := filepath.Glob(filepath.Join(root, dir+"-*", "bin", name))
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", fmt.Errorf("no %s below %s: run make deps", name, root)
	}
	return found[len(found)-1], nil // of several versions the last one by name
}

// MinIO is a running MinIO.
type MinIO struct {
	*Process
	Addr string
}

// StartMinIO runs MinIO with its data below dir and makes the buckets.
func StartMinIO(ctx context.Context, dir, addr string, buckets ...string) (*MinIO, error) {
	path, err := Peer("minio", "minio")
	if err != nil {
		return nil, err
	}
	console, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	p, err := Start(ctx, Spec{
		Name: "minio", Dir: dir, Path: path,
		Args:  []string{"server", "--quiet", "--address", addr, "--console-address", console, filepath.Join(dir, "minio")},
		Env:   []string{"MINIO_UPDATE=off", "MINIO_BROWSER=off", "MINIO_ROOT_USER=" + AccessKey, "MINIO_ROOT_PASSWORD=" + SecretKey},
		Ready: "http://" + addr + "/minio/health/live",
	})
	if err != nil {
		return nil, err
	}
	m := &MinIO{Process: p, Addr: addr}
	for _, b := range buckets {
		if err := m.makeBucket(ctx, b); err != nil {
			m.Kill()
			return nil, fmt.Errorf("make bucket %s: %w", b, err)
		}
	}
	return m, nil
}

// makeBucket goes on trying: a MinIO that says it lives may still be looking at its disk.
func (m *MinIO) makeBucket(ctx context.Context, name string) error {
	client, err := m.Client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := client.MakeBucket(ctx, name, minio.MakeBucketOptions{})
		if err == nil || minio.ToErrorResponse(err).Code == "BucketAlreadyOwnedByYou" {
			return nil
		}
		select {
		case <-m.Done():
			return errors.Join(err, m.Err())
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Client returns a client with full rights.
func (m *MinIO) Client() (*minio.Client, error) {
	return minio.New(m.Addr, &minio.Options{Creds: credentials.NewStaticV4(AccessKey, SecretKey, "")})
}

// ObjstoreYAML is the object store configuration for a bucket behind endpoint (host:port).
func ObjstoreYAML(endpoint, bucket string) string {
	return fmt.Sprintf(`type: S3
config:
  bucket: %s
  endpoint: %s
  access_key: %s
  secret_key: %s
  insecure: true
`, bucket, endpoint, AccessKey, SecretKey)
}

// PrometheusConfig describes one Prometheus of a pair.
type PrometheusConfig struct {
	Name           string
	Addr           string
	ExternalLabels map[string]string
	Targets        []string            // host:port of what to scrape as job "app"
	Jobs           map[string][]string // targets of more jobs
	RuleFiles      []string            // absolute
	ScrapeInterval time.Duration       // 0: a second
	BlockDuration  time.Duration       // 0: 30 s; it is both the smallest and the largest unless MaxBlock is set
	MaxBlock       time.Duration
	OutOfOrder     time.Duration // how old a sample may be that comes late
	CompactAtOnce  bool          // as before 3.9: without regard to what the sidecar has shipped
	Rules          string        // a rule file's content
	RemoteWrite    []RemoteWrite // where samples are sent to as well
	Args           []string      // more flags
}

// RemoteWrite is a receiver of what a Prometheus scrapes.
type RemoteWrite struct {
	URL     string
	Headers map[string]string
	Version int // of the protocol: 1 or 2
}

// Message is the name that Prometheus has for the protocol.
func (w RemoteWrite) Message() string {
	if w.Version == 2 {
		return "io.prometheus.write.v2.Request"
	}
	return "prometheus.WriteRequest"
}

// Prometheus is a running Prometheus.
type Prometheus struct {
	*Process
	URL        string
	DataDir    string
	ConfigPath string

	spec Spec
}

var prometheusYAML = template.Must(template.New("").Parse(`global:
  scrape_interval: {{ .ScrapeInterval }}
  evaluation_interval: {{ .ScrapeInterval }}
  scrape_native_histograms: true
  always_scrape_classic_histograms: true
{{- if .ExternalLabels }}
  external_labels:
{{- range $k, $v := .ExternalLabels }}
    {{ $k }}: {{ $v }}
{{- end }}
{{- end }}
{{- if .OutOfOrder }}
storage:
  tsdb:
    out_of_order_time_window: {{ .OutOfOrder }}
{{- end }}
{{- if .Rules }}
rule_files: [rules.yml]
{{- else if .RuleFiles }}
rule_files:
{{- range .RuleFiles }}
- {{ . }}
{{- end }}
{{- end }}
{{- if .RemoteWrite }}
remote_write:
{{- range .RemoteWrite }}
- url: {{ .URL }}
  protobuf_message: {{ .Message }}
  send_exemplars: true
  send_native_histograms: true
  queue_config: {batch_send_deadline: 200ms, min_shards: 2}
  metadata_config: {send_interval: 1s}
  headers:
{{- range $k, $v := .Headers }}
    {{ $k }}: {{ $v }}
{{- end }}
{{- end }}
{{- end }}
scrape_configs:
- job_name: app
  static_configs:
  - targets: [{{ range $i, $t := .Targets }}{{ if $i }}, {{ end }}'{{ $t }}'{{ end }}]
{{- range $job, $targets := .Jobs }}
- job_name: {{ $job }}
  static_configs:
  - targets: [{{ range $i, $t := $targets }}{{ if $i }}, {{ end }}'{{ $t }}'{{ end }}]
{{- end }}
`))

// StartPrometheus runs a Prometheus with its data below dir. It delays its own
// compaction until blocks are listed in the sidecar's state file, unless told otherwise.
func StartPrometheus(ctx context.Context, dir string, cfg PrometheusConfig) (*Prometheus, error) {
	path, err := Peer("prometheus", "prometheus")
	if err != nil {
		return nil, err
	}
	if cfg.BlockDuration == 0 {
		cfg.BlockDuration = 30 * time.Second
	}
	if cfg.MaxBlock == 0 {
		cfg.MaxBlock = cfg.BlockDuration
	}
	p := &Prometheus{
		URL:        "http://" + cfg.Addr,
		DataDir:    filepath.Join(dir, cfg.Name),
		ConfigPath: filepath.Join(dir, cfg.Name+".yml"),
	}
	if err := os.MkdirAll(p.DataDir, 0o750); err != nil {
		return nil, err
	}
	if err := p.Configure(cfg); err != nil {
		return nil, err
	}
	p.spec = Spec{
		Name: cfg.Name, Dir: dir, Path: path, Ready: p.URL + "/-/ready",
		Args: append([]string{
			"--config.file=" + p.ConfigPath,
			"--storage.tsdb.path=" + p.DataDir,
			"--storage.tsdb.min-block-duration=" + cfg.BlockDuration.String(),
			"--storage.tsdb.max-block-duration=" + cfg.MaxBlock.String(),
			"--enable-feature=exemplar-storage",
			"--web.listen-address=" + cfg.Addr,
			"--web.enable-lifecycle",
			"--log.level=warn",
		}, cfg.Args...),
	}
	if !cfg.CompactAtOnce {
		p.spec.Args = append(p.spec.Args, "--storage.tsdb.delay-compact-file.path="+filepath.Join(p.DataDir, "thanos.shipper.json"))
	}
	p.Process, err = Start(ctx, p.spec)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Configure writes the configuration file, and the rules beside it.
func (p *Prometheus) Configure(cfg PrometheusConfig) error {
	if cfg.ScrapeInterval == 0 {
		cfg.ScrapeInterval = time.Second
	}
	var out bytes.Buffer
	if err := prometheusYAML.Execute(&out, cfg); err != nil {
		return err
	}
	if cfg.Rules != "" {
		if err := os.WriteFile(filepath.Join(filepath.Dir(p.ConfigPath), "rules.yml"), []byte(cfg.Rules), 0o640); err != nil {
			return err
		}
	}
	return os.WriteFile(p.ConfigPath, out.Bytes(), 0o640)
}

// Restart runs it again with the same data, after Stop or Kill.
func (p *Prometheus) Restart(ctx context.Context) (err error) {
	p.Process, err = Start(ctx, p.spec)
	return err
}

// Blocks lists the ULIDs of the blocks in the data folder.
func (p *Prometheus) Blocks() ([]string, error) {
	found, err := filepath.Glob(filepath.Join(p.DataDir, "*", "meta.json"))
	var ids []string
	for _, f := range found {
		if id := filepath.Base(filepath.Dir(f)); len(id) == 26 && !strings.Contains(id, ".") {
			ids = append(ids, id)
		}
	}
	return ids, err
}

package stack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/firnline/firnline/e2e/s3proxy"
)

// Bucket is the name of the bucket that Clusters uses.
const Bucket = "firnline"

// Replica is one Prometheus of an HA pair with its sidecar.
type Replica struct {
	Cluster, Name string // "eu1", "a"
	Prometheus    *Prometheus
	Sidecar       *Firnline
}

// Clusters is the main job: HA pairs of Prometheus in clusters, a sidecar beside
// each, an object store, a store gateway and a querier; a whole one has all components.
type Clusters struct {
	Dir      string
	MinIO    *MinIO
	Proxy    *s3proxy.Proxy // nil unless asked for
	Apps     []*App
	Replicas []*Replica
	Store    *Firnline
	Query    *Firnline

	// Of a whole one.
	Ring    []*Firnline // ingesters
	Compact *Firnline
	Monitor *Prometheus

	cfg  ClustersConfig
	stop []func()
}

// ClustersConfig shapes Clusters.
type ClustersConfig struct {
	Dir          string
	Names        []string                         // of the clusters; nil: eu1 and us1
	Query        Addresses                        // of the querier; empty: free ones
	Whole        bool                             // with ingesters, a compactor, and a Prometheus that scrapes all of us and pushes
	RuleFiles    []string                         // what that one evaluates; absolute
	Faults       bool                             // put an s3proxy between components and MinIO
	BlockSeconds int                              // length of a block; 0: 30
	Rules        string                           // a rule file for every Prometheus
	QueryArgs    []string                         // more flags of the querier
	SidecarArgs  []string                         // more flags of every sidecar
	StoreArgs    []string                         // more flags of the store gateway
	Progress     func(format string, args ...any) // told what has started; nil: nobody
}

// StartClusters starts everything and waits until all of it is ready. On an
// error what was started is stopped.
func StartClusters(ctx context.Context, cfg ClustersConfig) (*Clusters, error) {
	if cfg.Names == nil {
		cfg.Names = []string{"eu1", "us1"}
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string, ...any) {}
	}
	c := &Clusters{Dir: cfg.Dir, cfg: cfg}
	for _, step := range []func(context.Context) error{c.startMinIO, c.startReplicas, c.startStore, c.startRing, c.startCompact, c.startQuery, c.startMonitor} {
		if err := step(ctx); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// Close stops everything, last started first.
func (c *Clusters) Close() {
	for i := len(c.stop) - 1; i >= 0; i-- {
		c.stop[i]()
	}
	c.stop = nil
}

func (c *Clusters) objstoreFile() string { return filepath.Join(c.Dir, "objstore.yml") }

func (c *Clusters) startMinIO(ctx context.Context) error {
	addr, err := FreeAddr()
	if err != nil {
		return err
	}
	if c.MinIO, err = StartMinIO(ctx, c.Dir, addr, Bucket); err != nil {
		return err
	}
	c.stop = append(c.stop, c.MinIO.Stop)
	c.cfg.Progress("object store  http://%s  bucket %s", addr, Bucket)
	endpoint := addr
	if c.cfg.Faults {
		if c.Proxy, err = s3proxy.Start(s3proxy.Target{Addr: addr, AccessKey: AccessKey, SecretKey: SecretKey}); err != nil {
			return err
		}
		c.stop = append(c.stop, c.Proxy.Close)
		endpoint = c.Proxy.Addr()
	}
	return os.WriteFile(c.objstoreFile(), []byte(ObjstoreYAML(endpoint, Bucket)), 0o600)
}

func (c *Clusters) startReplicas(ctx context.Context) error {
	for i, cluster := range c.cfg.Names {
		app, err := StartApp("127.0.0.1:0", cluster, uint64(i))
		if err != nil {
			return err
		}
		c.stop = append(c.stop, app.Close)
		c.Apps = append(c.Apps, app)
		for _, name := range []string{"a", "b"} {
			r, err := c.startReplica(ctx, app, cluster, name)
			if err != nil {
				return err
			}
			c.Replicas = append(c.Replicas, r)
			c.cfg.Progress("cluster %s  Prometheus %s  %s  sidecar http://%s", cluster, name, r.Prometheus.URL, r.Sidecar.HTTP)
		}
	}
	return nil
}

func (c *Clusters) startReplica(ctx context.Context, app *App, cluster, name string) (*Replica, error) {
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	block := time.Duration(c.cfg.BlockSeconds) * time.Second
	prom, err := StartPrometheus(ctx, c.Dir, PrometheusConfig{
		Name: fmt.Sprintf("prometheus-%s-%s", cluster, name), Addr: addr, BlockDuration: block,
		ExternalLabels: map[string]string{"cluster": cluster, "replica": name},
		Targets:        []string{app.Addr}, Rules: c.cfg.Rules,
	})
	if err != nil {
		return nil, err
	}
	c.stop = append(c.stop, func() { prom.Stop() })
	r := &Replica{Cluster: cluster, Name: name, Prometheus: prom}
	args := append([]string{"sidecar", "--prometheus.url=" + prom.URL, "--tsdb.path=" + prom.DataDir,
		"--objstore.config-file=" + c.objstoreFile(), "--shipper.interval=5s"}, c.cfg.SidecarArgs...)
	r.Sidecar, err = c.firnline(ctx, fmt.Sprintf("sidecar-%s-%s", cluster, name), args...)
	return r, err
}

func (c *Clusters) startStore(ctx context.Context) (err error) {
	args := append([]string{"store", "--data-dir=" + filepath.Join(c.Dir, "store"),
		"--objstore.config-file=" + c.objstoreFile(), "--sync-block-duration=5s"}, c.cfg.StoreArgs...)
	c.Store, err = c.firnline(ctx, "store", args...)
	if err == nil {
		c.cfg.Progress("store gateway  http://%s", c.Store.HTTP)
	}
	return err
}

func (c *Clusters) startQuery(ctx context.Context) (err error) {
	args := []string{"query", "--query.replica-label=replica", "--endpoint=" + c.Store.GRPC, "--endpoint.info-timeout=1m"}
	for _, r := range c.Replicas {
		args = append(args, "--endpoint="+r.Sidecar.GRPC)
	}
	if len(c.Ring) > 0 {
		args = append(args, "--query.replica-label=ingest", "--endpoint.http-sd-url=http://"+c.Ring[0].HTTP+"/api/v1/ingest/endpoints")
	}
	args = append(args, c.cfg.QueryArgs...)
	if c.cfg.Query == (Addresses{}) {
		c.Query, err = c.firnline(ctx, "query", args...)
	} else {
		c.Query, err = c.firnlineOn(ctx, "query", c.cfg.Query, args...)
	}
	if err == nil {
		c.cfg.Progress("querier  http://%s", c.Query.HTTP)
	}
	return err
}

// firnline runs a component on free ports.
func (c *Clusters) firnline(ctx context.Context, name string, args ...string) (*Firnline, error) {
	on, err := FreeAddresses()
	if err != nil {
		return nil, err
	}
	return c.firnlineOn(ctx, name, on, args...)
}

// firnlineOn runs a component until the clusters stop.
func (c *Clusters) firnlineOn(ctx context.Context, name string, on Addresses, args ...string) (*Firnline, error) {
	f, err := StartFirnline(ctx, c.Dir, name, on, args...)
	if err != nil {
		return nil, err
	}
	c.stop = append(c.stop, func() { f.Stop() })
	return f, nil
}

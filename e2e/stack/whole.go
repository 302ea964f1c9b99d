package stack

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// ringSize is how many ingesters Clusters has when it is whole: each series is on all of them.
const ringSize = 3

// startRing starts a ring of ingesters, for those who push.
func (c *Clusters) startRing(ctx context.Context) error {
	if !c.cfg.Whole {
		return nil
	}
	var join string
	for i := range ringSize {
		gossip, err := FreeAddr()
		if err != nil {
			return err
		}
		name := fmt.Sprintf("ingest-%d", i)
		args := []string{
			"ingest", "--tsdb.path=" + filepath.Join(c.Dir, name), fmt.Sprintf("--label=ingest=%q", name), "--remote-write.address=",
			"--ring.instance-id=" + name, "--ring.bind-address=" + gossip, "--ring.tokens=64", "--receive.replication-factor=3",
			"--objstore.config-file=" + c.objstoreFile(), "--shutdown-delay=100ms",
		}
		if join != "" {
			args = append(args, "--ring.join="+join)
		} else {
			join = gossip
		}
		f, err := c.firnline(ctx, name, args...)
		if err != nil {
			return err
		}
		c.Ring = append(c.Ring, f)
		c.cfg.Progress("ingester %d  http://%s", i, f.HTTP)
	}
	return nil
}

func (c *Clusters) startCompact(ctx context.Context) (err error) {
	if !c.cfg.Whole {
		return nil
	}
	c.Compact, err = c.firnline(ctx, "compact", "compact", "--wait", "--data-dir="+filepath.Join(c.Dir, "compact"),
		"--objstore.config-file="+c.objstoreFile(), "--deduplication.replica-label=replica", "--deduplication.replica-label=ingest")
	if err == nil {
		c.cfg.Progress("compactor  http://%s", c.Compact.HTTP)
	}
	return err
}

// startMonitor starts a Prometheus that scrapes every component and an app of its
// own, applies the rules that we ship, and pushes all of it to the ingesters.
func (c *Clusters) startMonitor(ctx context.Context) error {
	if !c.cfg.Whole {
		return nil
	}
	addr, err := FreeAddr()
	if err != nil {
		return err
	}
	app, err := StartApp("127.0.0.1:0", "ops", uint64(len(c.Apps)))
	if err != nil {
		return err
	}
	c.stop = append(c.stop, app.Close)
	jobs := map[string][]string{"store": {c.Store.HTTP}, "query": {c.Query.HTTP}, "compact": {c.Compact.HTTP}}
	for _, r := range c.Replicas {
		jobs["sidecar"] = append(jobs["sidecar"], r.Sidecar.HTTP)
	}
	for _, f := range c.Ring {
		jobs["ingest"] = append(jobs["ingest"], f.HTTP)
	}
	p, err := StartPrometheus(ctx, c.Dir, PrometheusConfig{
		Name: "monitor", Addr: addr, ExternalLabels: map[string]string{"cluster": "ops"}, BlockDuration: 2 * time.Hour, CompactAtOnce: true,
		ScrapeInterval: 2 * time.Second, Targets: []string{app.Addr}, Jobs: jobs, RuleFiles: c.cfg.RuleFiles,
		RemoteWrite: []RemoteWrite{{URL: "http://" + c.Ring[0].HTTP + "/api/v1/write", Version: 2}},
	})
	if err != nil {
		return err
	}
	c.Monitor = p
	c.stop = append(c.stop, func() { p.Stop() })
	c.cfg.Progress("monitor  %s  scrapes all of these and pushes to the ingesters", p.URL)
	return nil
}

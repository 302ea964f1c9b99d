// Command demo shows all of Firnline on real input, on loopback, as deploy/compose
// does in containers: two HA pairs of Prometheus in two clusters, a sidecar beside
// each, an object store, a store gateway and a compactor over it, a ring of three
// ingesters that a monitoring Prometheus pushes to, and one querier over all. It runs
// until it is interrupted and leaves nothing behind but its data folder.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/firnline/firnline/e2e/stack"
)

const (
	queryHTTP = "127.0.0.1:10902"
	queryGRPC = "127.0.0.1:10901"
)

func main() {
	once := flag.Bool("once", false, "End after the example queries have been answered.")
	data := flag.String("data", "data/demo", "Folder for everything the demo writes. Emptied at start if an earlier demo made it.")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *data, *once); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// progress prints lines with the time since the start.
type progress struct{ start time.Time }

func (p progress) say(format string, args ...any) {
	fmt.Fprintf(os.Stdout, "%6.1fs  %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}

func run(ctx context.Context, data string, once bool) error {
	dir, err := emptyFolder(data)
	if err != nil {
		return err
	}
	rules, err := stack.RuleFiles()
	if err != nil {
		return err
	}
	p := progress{time.Now()}
	fmt.Fprintln(os.Stdout, "Two clusters with two Prometheus servers each, one that pushes, one bucket, one place to query. Logs and data:", data)
	c, err := stack.StartClusters(ctx, stack.ClustersConfig{Dir: dir, Whole: true, RuleFiles: rules, Query: stack.Addresses{HTTP: queryHTTP, GRPC: queryGRPC}, Progress: p.say})
	if err != nil {
		return err
	}
	defer c.Close()
	p.say("everything is up; blocks are 30 s long here, so the first ones come within a minute or so")
	if err := waitForBlocks(ctx, c, p); err != nil {
		return err
	}
	live, historical, global := examples(c.Store.GRPC)
	for _, e := range []example{live, historical, global} {
		if err := e.show(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stdout, "\nGrafana: add a Prometheus data source with the URL http://%s\nEndpoints: http://%s/api/v1/stores\n", queryHTTP, queryHTTP)
	if once {
		return nil
	}
	fmt.Fprintln(os.Stdout, "Running until Ctrl-C.")
	<-ctx.Done()
	fmt.Fprintln(os.Stdout, "Stopping.")
	return nil
}

// emptyFolder makes the data folder, or empties the one of an earlier demo. A
// folder that no demo made is left alone.
func emptyFolder(data string) (string, error) {
	dir, err := filepath.Abs(data)
	if err != nil {
		return "", err
	}
	marker := filepath.Join(dir, "made-by-firnline-demo")
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		if _, err := os.Stat(marker); err != nil {
			return "", fmt.Errorf("%s is not empty and not of an earlier demo: name another folder with --data", data)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	return dir, os.WriteFile(marker, nil, 0o640)
}

// waitForBlocks waits until each cluster has a block in the bucket and the store serves it.
func waitForBlocks(ctx context.Context, c *stack.Clusters, p progress) error {
	client, err := c.MinIO.Client()
	if err != nil {
		return err
	}
	_, historical, _ := examples(c.Store.GRPC)
	first := true
	for ctx.Err() == nil {
		for o := range client.ListObjects(ctx, stack.Bucket, minio.ListObjectsOptions{Recursive: true}) {
			if first && o.Err == nil && strings.HasSuffix(o.Key, "/meta.json") {
				first = false
				p.say("the first block has landed: %s", strings.TrimSuffix(o.Key, "/meta.json"))
			}
		}
		served := map[string]bool{}
		if r, err := historical.ask(ctx); err == nil {
			for _, s := range r.Result {
				served[s.Metric["cluster"]] = true
			}
		}
		if len(served) == 2 {
			p.say("the store gateway serves blocks of both clusters")
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return ctx.Err()
}

type example struct {
	title  string
	params url.Values
}

// examples are one query over live data, one over the bucket alone, which asks
// the store gateway and nobody else, and one over all of it.
func examples(storeAddr string) (live, historical, global example) {
	live = example{
		title:  "Live: what Prometheus has scraped just now",
		params: url.Values{"query": {`sum by (cluster, code) (rate(app_requests_total{cluster="eu1"}[15s]))`}},
	}
	historical = example{
		title: "Historical: out of object storage alone",
		params: url.Values{
			"query":        {`sum by (cluster) (last_over_time(app_requests_total[10m]))`},
			"storeMatch[]": {fmt.Sprintf(`{__address__=%q}`, storeAddr)},
		},
	}
	global = example{
		title:  "Global: live and historical data of both clusters, HA pairs deduplicated",
		params: url.Values{"query": {`histogram_quantile(0.9, sum by (cluster) (rate(app_response_size_bytes[2m])))`}},
	}
	return live, historical, global
}

func (e example) ask(ctx context.Context) (stack.Result, error) {
	a, err := stack.Ask(ctx, "http://"+queryHTTP, "query", e.params)
	if err != nil {
		return stack.Result{}, err
	}
	return a.Result()
}

func (e example) show(ctx context.Context) error {
	r, err := e.ask(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", e.title, err)
	}
	if len(r.Result) == 0 {
		return fmt.Errorf("%s: the answer is empty", e.title)
	}
	fmt.Fprintf(os.Stdout, "\n%s\n  %s\n", e.title, e.params.Get("query"))
	for _, s := range r.Result {
		fmt.Fprintf(os.Stdout, "    %v  %v\n", s.Metric, s.Value[1])
	}
	u := url.URL{Scheme: "http", Host: queryHTTP, Path: "/api/v1/query", RawQuery: e.params.Encode()}
	fmt.Fprintf(os.Stdout, "  curl '%s'\n", u.String())
	return nil
}

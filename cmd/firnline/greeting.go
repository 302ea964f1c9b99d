package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"

	"github.com/firnline/firnline/pkg/bucket"
)

// greeting tells whoever started `firnline all` what to do next.
type greeting struct {
	p       *process
	dataDir string
	target  *bucket.Target
	local   bool // the bucket is a folder below dataDir
}

// Run implements runner: it tells once.
func (g greeting) Run(context.Context) error {
	http, grpc := reachable(g.p.srv.HTTPAddr().String()), reachable(g.p.srv.GRPCAddr().String())
	base := g.p.scheme() + "://" + http
	dir := g.dataDir
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	where, production := dir+", bucket included", "give a bucket that outlives this machine (--objstore.config-file), and passwords and TLS (--http.config)"
	if !g.local {
		where, production = fmt.Sprintf("%s, and the bucket %s", dir, g.target), "set passwords and TLS (--http.config); run components of their own as it grows"
	}
	if !g.p.talk.terminal {
		g.p.log.Info("query here, or by the API of Prometheus", "url", base)
		g.p.log.Info("send here by remote write", "remote_write", "[{url: "+base+"/api/v1/write}]", "otlp", base+"/v1/metrics", "otlp_grpc", grpc)
		g.p.log.Info("give this to Grafana as a Prometheus data source", "url", base)
		g.p.log.Info("all data is here", "data", where)
		g.p.log.Info("for production", "do", production)
		return nil
	}
	fmt.Fprintf(g.p.talk, `
  Query         %s
  Grafana       add a Prometheus data source with the URL %s
  Prometheus    put this into prometheus.yml:

                remote_write:
                  - url: %s/api/v1/write

  OTLP          %s/v1/metrics, by gRPC %s
  Data          %s
  Production    %s

`, base, base, base, base, grpc, where, production)
	return nil
}

// reachable is an address as it can be called from this machine.
func reachable(listens string) string {
	host, port, err := net.SplitHostPort(listens)
	if err != nil {
		return listens
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && (ip.IsUnspecified() || ip.IsLoopback() && ip.To4() == nil) {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// scheme is what HTTP is spoken by.
func (p *process) scheme() string {
	if p.srv.TLS() {
		return "https"
	}
	return "http"
}

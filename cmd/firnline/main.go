// Command firnline is a horizontally scalable long-term store for Prometheus
// metrics: one binary, a subcommand a component.
//
//	prometheus ── sidecar ──ships──► bucket ◄──reads── store
//	                 ▲                                   ▲
//	                 └─────────────── query ─────────────┘ ◄── Grafana
//
// This package parses, builds and runs; what a component does is in its package.
package main

import (
	"os"
)

func main() {
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}

// Package server is the front door of every component: one HTTP and one gRPC
// listener with TLS, authentication, limits, request ids, metrics, logs and
// traces, the probes, and the graceful stop. It does not know what a route means.
//
// A Server is made by New, which starts nothing. Routes, readiness checks and
// reloaders are added before Run; Listen takes the ports and may be called
// earlier, so that a port in use is found before other work begins. Run serves
// until its context ends, and then
//
//  1. is not ready: /-/ready answers 503, gRPC health says NOT_SERVING,
//  2. waits for Config.ShutdownDelay, so that load balancers notice,
//  3. takes no new connection and lets requests finish within the grace periods,
//  4. cuts what is left, and returns.
//
// What lies in files (web config, certificates) is looked at again when it
// changes. A new version that can't be used is reported, and the last good one
// stays in force.
//
// Add checks, routes and reloaders from one goroutine before Run; everything
// else is safe for concurrent use.
package server

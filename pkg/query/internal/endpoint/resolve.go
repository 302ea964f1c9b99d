package endpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/dskit/dns"
	"github.com/grafana/dskit/dns/godns"
	"github.com/grafana/dskit/dns/miekgdns"
)

// resolver looks up DNS names and remembers the last good answers.
// Not safe for concurrent use.
type resolver struct {
	dns      dns.Resolver
	interval time.Duration // between lookups of a name
	timeout  time.Duration // of a lookup
	known    map[string]answer
}

type answer struct {
	lookup
	at time.Time
}

func newResolver(cfg Config) *resolver {
	// The library's log lines say no more than the errors and the list of endpoints do.
	quiet := log.NewNopLogger()
	r := &resolver{interval: time.Duration(cfg.DNSInterval), timeout: time.Duration(cfg.InfoTimeout), known: map[string]answer{}}
	if cfg.DNSResolver == "miekgdns" {
		r.dns = dns.NewResolver(miekgdns.NewResolver(miekgdns.DefaultResolvConfPath, 0, quiet), quiet)
	} else {
		r.dns = dns.NewResolver(&godns.Resolver{Resolver: net.DefaultResolver}, quiet)
	}
	return r
}

// refresh looks up the names among specs that are due, all at once. The error
// joins those of the lookups; a name keeps its earlier addresses meanwhile.
func (r *resolver) refresh(ctx context.Context, specs []spec, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	due := r.due(specs, now)
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for _, address := range due {
		wg.Go(func() {
			prefix, host := splitPrefix(address)
			if prefix == "dnsdualstack" {
				prefix = "dns" // which looks up both families too
			}
			found, err := r.dns.Resolve(ctx, host, dns.QType(prefix))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("look up %s: %w", address, err))
				found = r.known[address].addresses
			}
			r.known[address] = answer{lookup{found, err}, now}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// due forgets the names that are not among specs and returns those to look up
// now: new ones, ones without addresses, ones whose answer is old.
func (r *resolver) due(specs []spec, now time.Time) []string {
	var due []string
	wanted := map[string]bool{}
	for _, s := range specs {
		if prefix, _ := splitPrefix(s.address); prefix == "" || wanted[s.address] {
			continue
		}
		wanted[s.address] = true
		if old := r.known[s.address]; len(old.addresses) == 0 || now.Sub(old.at) >= r.interval {
			due = append(due, s.address)
		}
	}
	maps.DeleteFunc(r.known, func(address string, _ answer) bool { return !wanted[address] })
	return due
}

// lookups returns what is known of each name.
func (r *resolver) lookups() map[string]lookup {
	m := make(map[string]lookup, len(r.known))
	for name, a := range r.known {
		m[name] = a.lookup
	}
	return m
}

package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// reloadTimeout bounds one reload of everything.
const reloadTimeout = time.Minute

// reloads runs all reloaders, one reload at a time. Calls that come while one
// runs share the next one, so that a storm of them costs two.
type reloads struct {
	metrics *metrics
	now     func() time.Time

	mu struct {
		sync.Mutex
		all     []reloader
		running *reloadCall
		next    *reloadCall // not begun: whoever joins sees what changed before the call
	}
}

type reloader struct {
	name string
	run  func(context.Context) error
}

type reloadCall struct {
	done chan struct{}
	err  error // valid when done
}

func (c *reloadCall) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *reloads) add(name string, run func(context.Context) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.all = append(r.mu.all, reloader{name, run})
}

// do reloads everything and returns what went wrong, each naming its configuration.
func (r *reloads) do(ctx context.Context) error {
	r.mu.Lock()
	if c := r.mu.next; c != nil {
		r.mu.Unlock()
		return c.wait(ctx)
	}
	c, before := &reloadCall{done: make(chan struct{})}, r.mu.running
	r.mu.next = c
	r.mu.Unlock()

	if before != nil {
		<-before.done
	}
	r.mu.Lock()
	r.mu.running, r.mu.next = c, nil
	r.mu.Unlock()

	// Others may wait for this one, so it goes on when its own caller has left.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reloadTimeout)
	defer cancel()
	c.err = r.runAll(ctx)

	r.mu.Lock()
	r.mu.running = nil
	r.mu.Unlock()
	close(c.done)
	return c.err
}

func (r *reloads) runAll(ctx context.Context) error {
	r.mu.Lock()
	all := r.mu.all
	r.mu.Unlock()
	var errs []error
	for _, one := range all {
		if err := one.run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", one.name, err))
		}
	}
	err := errors.Join(errs...)
	r.metrics.reloadedAll(err, r.now())
	return err
}

// handleReload answers POST /-/reload.
func (s *Server) handleReload(w http.ResponseWriter, r *http.Request) {
	if !s.cfg.EnableLifecycle {
		http.Error(w, "reloading over HTTP is off (--web.enable-lifecycle)", http.StatusForbidden)
		return
	}
	user, _, _ := r.BasicAuth()
	s.log.InfoContext(r.Context(), "reload asked for over HTTP", "remote", r.RemoteAddr, "user", user)
	if err := s.Reload(r.Context()); err != nil {
		http.Error(w, "reload: the configuration before stays in force: "+err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, "reloaded")
}

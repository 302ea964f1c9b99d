package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact"
	"github.com/firnline/firnline/pkg/server"
)

// newCompact makes the command of these parts:
//
//	bucket ◄──► compact ──► HTTP: status, plan, deleting series
func newCompact() *component {
	var cfg compact.Config
	bkt := bucketConfig{required: true}
	return &component{
		base:  base{server: server.Config{HTTPOnly: true}},
		name:  "compact",
		short: "Compact, downsample and retain the blocks in a bucket",
		long: `Compact, deduplicate, downsample and retain the blocks in a bucket, and carry out
requests to delete series. It alone removes blocks. Run as many on one bucket as
you like, but no other program's compactor beside them.

Without --wait it makes one pass, and the exit code is 1 if something is left
undone. What it would do is told by firnline tools compact plan.`,
		example: `  firnline compact --wait --data-dir=/var/lib/firnline --objstore.config-file=bucket.yml
  firnline compact --deduplication.replica-label=replica --retention.resolution-raw=30d ...`,
		parts: []configurer{&cfg, &bkt},
		build: func(ctx context.Context, p *process) ([]runner, error) {
			lessGarbage() // what it holds are buffers without a pointer, which cost next to nothing to look through
			b, err := bkt.open(ctx, p)
			if err != nil {
				return nil, err
			}
			c, err := compact.New(cfg, compact.Parts{Bucket: b, Log: p.log, Metrics: p.reg, Fault: b.FaultPoint})
			if err != nil {
				return nil, err
			}
			check := newBucketCheck(b, p, true)
			p.srv.AddCheck("bucket", check.check)
			p.srv.AddCheck("compact", c.Ready)
			p.srv.AddReloader("retention policy", func(context.Context) error { return c.Reload() })
			p.srv.Handle("/api/v1/", c.Handler())
			if err := p.landing(compactRoutes()...); err != nil {
				return nil, err
			}
			return []runner{check, &compacting{c, b, cfg.Wait, p.talk}}, nil
		},
	}
}

// compactRoutes are what the page of a process that compacts tells of.
func compactRoutes() []server.Route {
	return []server.Route{
		{Path: "/api/v1/compact/status", About: "what is done and known"},
		{Path: "/api/v1/compact/plan", About: "what would be done and why"},
		{Path: "/api/v1/delete_requests", About: "requests to delete series"},
		{Path: "POST /api/v1/delete_series", About: "ask for series to be deleted"},
		{Path: "POST /api/v1/delete_requests/{id}/cancel", About: "take that back"},
	}
}

// compacting runs a compactor: for ever, or for one pass that the operator can watch.
type compacting struct {
	*compact.Compactor
	bkt  *bucket.Handle
	wait bool
	talk *board
}

// Run implements runner. After a pass it returns errFinished, so that the process ends.
func (c *compacting) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, c.Close()) }()
	if c.wait {
		return c.Compactor.Run(ctx)
	}
	watching, enough := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		c.watch(watching)
	}()
	err = c.Once(ctx)
	enough()
	<-watched
	c.tellLeft()
	switch {
	case ctx.Err() != nil:
		return nil // told to stop
	case errors.Is(err, compact.ErrLeftUndone):
		return err
	case err != nil:
		return explained(c.bkt, err)
	}
	return errFinished
}

// tellLeft shows on a terminal what the pass has left.
func (c *compacting) tellLeft() {
	if !c.talk.terminal {
		return
	}
	if left, err := c.Left(); err == nil { // else the pass has failed, and says so
		fmt.Fprint(c.talk, left)
	}
}

// watch shows the running jobs on a terminal until ctx is done.
func (c *compacting) watch(ctx context.Context) {
	if !c.talk.terminal {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	defer c.talk.show(nil)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.talk.show(jobTable(c.Status()))
	}
}

// jobTable is what a terminal shows of a compactor's work.
func jobTable(s compact.Status) []string {
	if s.Ready != "" {
		return []string{s.Ready}
	}
	jobs := 0
	for _, b := range s.Backlog {
		for _, n := range b.Jobs {
			jobs += n
		}
	}
	head := []string{counted(s.Blocks-s.Marked, "block")}
	if s.Marked > 0 {
		head = append(head, fmt.Sprintf("%d more marked for deletion", s.Marked))
	}
	head = append(head, counted(jobs, "job")+" to do in "+counted(len(s.Backlog), "group"), fmt.Sprintf("%d running", len(s.Running)))
	for _, n := range []struct {
		n    int
		what string
	}{{len(s.Elsewhere), "elsewhere"}, {len(s.Failed), "failed"}, {len(s.Held), "held"}, {len(s.SetAside), "set aside"}} {
		if n.n > 0 {
			head = append(head, fmt.Sprintf("%d %s", n.n, n.what))
		}
	}
	if s.Hours > 0 {
		head = append(head, "about "+roughly(time.Duration(s.Hours*float64(time.Hour))))
	}
	out := []string{strings.Join(head, ", ")}
	for _, r := range s.Running {
		left := "        "
		if r.Left > 0 {
			left = fmt.Sprintf("%8s", roughly(time.Duration(r.Left*float64(time.Second))))
		}
		out = append(out, fmt.Sprintf("%s %3.0f%% %s  %-14s %s", bar(r.Share, 20), 100*r.Share, left, r.Stage, r.What))
	}
	return append(out, backlogLines(s.Backlog)...)
}

// boardGroups is how many groups a terminal shows the backlog of.
const boardGroups = 5

// backlogLines tell what is left to do in the groups with the largest backlog.
func backlogLines(all []compact.Backlog) (out []string) {
	for _, b := range all[:min(len(all), boardGroups)] {
		jobs := 0
		for _, n := range b.Jobs {
			jobs += n
		}
		line := fmt.Sprintf("%10s %12s %10s  %s %s", counted(jobs, "job"), counted(b.Blocks, "block"), humanBytes(b.Bytes), b.Group, b.Labels)
		if b.Hours > 0 {
			line += ", about " + roughly(time.Duration(b.Hours*float64(time.Hour)))
		}
		out = append(out, line)
	}
	if more := len(all) - boardGroups; more > 0 {
		out = append(out, fmt.Sprintf("%10s and %s", "…", counted(more, "more group")))
	}
	return out
}

// counted writes a number of things.
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// roughly writes a duration as people say it.
func roughly(d time.Duration) string {
	switch {
	case d >= time.Hour:
		return fmt.Sprintf("%.1fh", d.Hours())
	case d >= time.Minute:
		return fmt.Sprintf("%.0fm", d.Minutes())
	}
	return fmt.Sprintf("%.0fs", d.Seconds())
}

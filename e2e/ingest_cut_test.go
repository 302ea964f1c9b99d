package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/stack"
)

// inOwnNetwork runs the test anew in a network of its own. True: this is that
// run. A test that gets false has nothing more to do.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	if stack.InOwnNetwork() {
		return true
	}
	cmd, err := stack.OwnNetwork(t.Context(), "-test.v", "-test.count=1", "-test.timeout=25m", "-test.run=^"+t.Name()+"$")
	if err != nil {
		t.Skipf("the network can't be cut here: %s", err)
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name(), "it must really have run")
	t.Logf("in its own network:\n%s", out)
	return false
}

// TestRingCut writes to three nodes, each series to all of them, while the network
// between them is cut: one node from both others, one from another but not from
// the third, and one that hears but is not heard. The side with the quorum takes
// writes, the other one refuses them, the ring is whole again afterwards, and
// everything acknowledged is read back once.
//
// RELIABILITY I5, P1
func TestRingCut(t *testing.T) {
	t.Parallel()
	if !inOwnNetwork(t) {
		return
	}
	net, err := stack.NewNetwork("a", "b", "c")
	require.NoError(t, err)
	r := bareRig(t)
	nodes := r.ringOn(net.Hosts())
	a, b, c := nodes[0], nodes[1], nodes[2]
	whole := func() error {
		var errs []error
		for _, n := range nodes {
			errs = append(errs, stack.OK(t.Context(), "http://"+n.HTTP+"/-/ready"), healthy(t, n, 3))
		}
		return errors.Join(errs...)
	}
	eventually(t, 40*time.Second, whole)
	w := newSetWriter(nodes...)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx) }()
	defer func() { stop(); <-done }()
	w.goesOn(t, 20)
	began := time.Now()
	note := func(what string) { t.Logf("%5.1f s: %s", time.Since(began).Seconds(), what) }

	cut := func(what string, err error) {
		require.NoError(t, err)
		w.refusedBy(t, c, 10)
		w.use(a, b)
		w.goesOn(t, 20)
		note("c is cut off, " + what)
		eventually(t, 20*time.Second, func() error { return errors.Join(healthy(t, a, 2), healthy(t, b, 2)) })
		w.use(a, b, c)
		w.refusedBy(t, c, 10)
		note("the ring has noticed")
		require.NoError(t, net.Heal())
		eventually(t, 60*time.Second, whole)
		w.use(c)
		w.goesOn(t, 10)
		w.use(a, b, c)
		note("the ring is whole again")
	}
	hostA, hostB, hostC := net.Hosts()[0], net.Hosts()[1], net.Hosts()[2]
	cut("both ways", errors.Join(net.Cut(hostC, hostA), net.Cut(hostC, hostB)))
	cut("it hears and is not heard", errors.Join(net.Lose(hostC, hostA), net.Lose(hostC, hostB)))

	require.NoError(t, net.Cut(hostA, hostC))
	for _, n := range nodes {
		w.use(n)
		w.goesOn(t, 10)
	}
	note("a and c are cut from each other")
	require.NoError(t, net.Heal())
	eventually(t, 40*time.Second, whole)
	stop()
	<-done
	require.NoError(t, w.odd)
	t.Logf("%d requests acknowledged, of %d by lane: %v", w.acknowledged(), w.tries, w.said)

	q := r.asks(a, b, c)
	eventually(t, 30*time.Second, func() error { return w.verify(t, q) })
	note("read back")
}

// ringOn runs a node on each host, which keep each series three times.
func (r *rig) ringOn(hosts []stack.Host) (nodes []*stack.Firnline) {
	args := []string{"--receive.replication-factor=3", "--receive-forward-timeout=2s", "--ring.heartbeat-timeout=5s"}
	for _, h := range hosts[:2] {
		args = append(args, "--ring.join="+h.Peer+":7946")
	}
	for _, h := range hosts {
		on := stack.Addresses{HTTP: h.Client + ":10902", GRPC: h.Peer + ":10901"}
		nodes = append(nodes, r.launchOn(on, h.Prefix(), r.ringArgs(h.Name, h.Peer+":7946", args...)...))
	}
	return nodes
}

// refusedBy waits until a node has answered so many requests with 503, and none
// with 2xx once those that were on their way have ended.
func (w *setWriter) refusedBy(t *testing.T, node *stack.Firnline, requests int) {
	t.Helper()
	w.comesBack(t)
	refused, taken := w.answers(node, http.StatusServiceUnavailable), w.answers(node, http.StatusNoContent)
	eventually(t, 40*time.Second, func() error {
		if n := w.answers(node, http.StatusServiceUnavailable) - refused; n < requests {
			return fmt.Errorf("%d requests refused", n)
		}
		return nil
	})
	require.Equal(t, taken, w.answers(node, http.StatusNoContent), "acknowledged without a quorum")
}

// healthy is nil once a node hears the heartbeats of so many members, itself included.
func healthy(t *testing.T, n *stack.Firnline, want int) error {
	t.Helper()
	_, body := get(t, "http://"+n.HTTP+"/api/v1/ingest/ring")
	var ring struct {
		Data struct {
			Instances []struct{ Healthy bool }
		}
	}
	if err := json.Unmarshal([]byte(body), &ring); err != nil {
		return fmt.Errorf("%w: %s", err, body)
	}
	got := 0
	for _, i := range ring.Data.Instances {
		if i.Healthy {
			got++
		}
	}
	if got != want {
		return fmt.Errorf("%s hears %d members, not %d", n.Name, got, want)
	}
	return nil
}

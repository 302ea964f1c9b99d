package e2e

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/stack"
)

// words splits a command as a shell does.
func words(t *testing.T, command string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `for w in `+strings.TrimSpace(command)+`; do printf '%s\n' "$w"; done`).Output()
	require.NoError(t, err)
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// TestGettingStarted runs every command of docs/getting-started.md, in its order:
// addresses and folders are those of the test.
func TestGettingStarted(t *testing.T) {
	t.Parallel()
	r := bareRig(t)
	p, _ := r.prometheus("prometheus", map[string]string{"cluster": "eu1"})
	gossip, err := stack.FreeAddr()
	require.NoError(t, err)
	data := filepath.Join(r.dir, "data")
	bucket := filepath.Join(r.dir, "bucket.yml")
	r.write(bucket, "type: FILESYSTEM\nconfig: {directory: "+filepath.Join(data, "bucket")+"}\n")
	there := []string{"bucket.yml", bucket, "/var/lib/firnline", filepath.Join(r.dir, "grown"), "/var/lib/prometheus", p.DataDir, "http://localhost:9090", p.URL, "dns+ingest:7946", gossip}

	run, err := os.ReadFile("../Makefile")
	require.NoError(t, err)
	require.Contains(t, string(run), "\n\tbin/firnline all $(ARGS)\n")
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	for _, c := range commandsOf(t, "../docs/getting-started.md")[:2] {
		require.Contains(t, string(readme), "\n```sh\n"+c+"\n", "the first commands are the same")
	}
	more := map[string][]string{ // by what a command begins with: flags that keep it out of others' way
		"all --prometheus.url": {"--data-dir=" + filepath.Join(r.dir, "beside")},
		"all --objstore":       {"--data-dir=" + data, "--shutdown-delay=0s"},
		"store":                {"--sync-block-duration=1s"},
		"ingest":               {"--ring.bind-address=" + gossip, "--remote-write.address=", "--ring.join-wait=1s"},
	}
	started := map[string]*stack.Firnline{}
	for _, c := range commandsOf(t, "../docs/getting-started.md") {
		args := words(t, strings.NewReplacer(there...).Replace(strings.TrimPrefix(c, "firnline ")))
		switch {
		case c == "make run":
			started["all"] = r.start("all", "--data-dir="+data, "--shutdown-delay=0s")
			there = append(there, "localhost:10902", started["all"].HTTP, "all:10901", started["all"].GRPC)
		case strings.HasPrefix(c, "curl "):
			r.curl(strings.NewReplacer(there...).Replace(c))
		case strings.HasPrefix(c, "firnline "):
			if strings.Contains(c, "--ingest.leave-on-stop") {
				started["all"].Stop()
			}
			for beginning, flags := range more {
				if strings.HasPrefix(c, "firnline "+beginning) {
					args = append(args, flags...)
				}
			}
			f := r.start(args...)
			if strings.Contains(c, "--prometheus.url") {
				f.Stop()
				continue
			}
			started[args[0]] = f
			if args[0] == "store" {
				there = append(there, "store:10901", f.GRPC)
			}
			if args[0] == "query" {
				r.knowsHello(f)
			}
		default:
			t.Fatalf("no test runs %s", c)
		}
	}
	started["all"].Stop() // it leaves, and its last samples are in the bucket
	require.NoError(t, started["all"].Err(), started["all"].Tail(20))
	require.Contains(t, started["all"].Tail(50), "everything is shipped and verified in the bucket")
	r.knowsHello(r.querier("--endpoint="+started["store"].GRPC, "--query.replica-label=ingest"))
}

// curl runs a command until it is answered with success.
func (r *rig) curl(command string) {
	r.t.Helper()
	eventually(r.t, 30*time.Second, func() error {
		out, err := exec.CommandContext(r.t.Context(), "sh", "-c", command).Output()
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		if s := strings.TrimSpace(string(out)); s != "{}" && (!strings.Contains(s, `"success"`) || strings.Contains(s, `"result":[]`)) {
			return fmt.Errorf("%s: %s", command, s)
		}
		return nil
	})
}

// knowsHello waits until a querier has what the page pushed, as one series.
func (r *rig) knowsHello(q *stack.Firnline) {
	r.t.Helper()
	eventually(r.t, time.Minute, func() error {
		got, err := values(r.t, q, url.Values{"query": {"last_over_time(hello[1h])"}})
		if err == nil && len(got) != 1 {
			err = fmt.Errorf("%v", got)
		}
		return err
	})
}

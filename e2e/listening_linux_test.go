package e2e

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/stack"
)

// TestAllListensElsewhereByFlagAlone: one HTTP and one gRPC port, and more where they are asked for.
func TestAllListensElsewhereByFlagAlone(t *testing.T) {
	t.Parallel()
	r := bareRig(t)
	grafana, err := stack.FreeAddr()
	require.NoError(t, err)
	all := r.allIn("data", "--query.address="+grafana)
	require.NoError(t, stack.OK(t.Context(), "http://"+grafana+"/api/v1/status/buildinfo"))
	eventually(t, time.Minute, func() error { // the kernel's list is read in pieces, while others begin and cease to listen
		return onlyListensOn(all, all.HTTP, all.GRPC, grafana)
	})
}

// onlyListensOn tells of ports other than those of the addresses on which a process listens for TCP.
func onlyListensOn(f *stack.Firnline, addresses ...string) error {
	var want []string
	for _, a := range addresses {
		_, port, err := net.SplitHostPort(a)
		if err != nil {
			return err
		}
		want = append(want, port)
	}
	sockets := map[string]bool{}
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", f.PID()))
	if err != nil {
		return err
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil {
			sockets[to] = true
		}
	}
	var got []string
	for _, table := range []string{"tcp", "tcp6"} {
		lines, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", f.PID(), table))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(lines)) {
			const listen = "0A"
			c := strings.Fields(line)
			if len(c) < 10 || c[3] != listen || !sockets["socket:["+c[9]+"]"] {
				continue
			}
			_, port, _ := strings.Cut(c[1], ":")
			n, err := hex.DecodeString(port)
			if err != nil {
				return err
			}
			got = append(got, strconv.Itoa(int(n[0])<<8|int(n[1])))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		return fmt.Errorf("listens on %v, want %v", got, want)
	}
	return nil
}

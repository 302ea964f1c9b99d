package ring_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/ingest/internal/ring"
	"github.com/firnline/firnline/pkg/tenant"
)

func newStatic(t testing.TB, cfg ring.StaticConfig, rf int) (*ring.Static, error) {
	t.Helper()
	if cfg.Algorithm == "" {
		cfg.Algorithm = "hashmod"
	}
	if cfg.Refresh == 0 {
		cfg.Refresh = model.Duration(time.Second)
	}
	return ring.NewStatic(ring.Config{ReplicationFactor: rf, Static: cfg}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

// owners are the first letters of the owners' addresses.
func owners(v *ring.View, hash uint64) string {
	var s strings.Builder
	for _, o := range v.Set(v.Owners(hash)).Owners {
		s.WriteString(v.Instances()[o].Addr[:1])
	}
	return s.String()
}

// The owners in testdata/thanos were computed by the hashrings of Thanos itself
// (e103a81b), for the series {__name__="m", i="0"} to 39 of each tenant.
func TestStaticPlacesAsThanos(t *testing.T) {
	datadriven.RunTest(t, "testdata/thanos", func(t *testing.T, d *datadriven.TestData) string {
		var algorithm string
		var rf int
		d.ScanArgs(t, "algorithm", &algorithm)
		d.ScanArgs(t, "rf", &rf)
		s, err := newStatic(t, ring.StaticConfig{Hashrings: d.Input, Algorithm: algorithm}, rf)
		require.NoError(t, err)
		var out strings.Builder
		for lines := bufio.NewScanner(strings.NewReader(d.Expected)); lines.Scan(); {
			var id tenant.ID
			var hash uint64
			_, err := fmt.Sscanf(lines.Text(), "%s %x", &id, &hash)
			require.NoError(t, err)
			v, err := s.View(id)
			require.NoError(t, err)
			fmt.Fprintf(&out, "%s %016x %s\n", id, hash, owners(v, hash))
		}
		return out.String()
	})
}

func TestStaticRefusesMistakes(t *testing.T) {
	datadriven.RunTest(t, "testdata/mistakes", func(t *testing.T, d *datadriven.TestData) string {
		rf := 1
		d.MaybeScanArgs(t, "rf", &rf)
		_, err := newStatic(t, ring.StaticConfig{Hashrings: d.Input}, rf)
		if err == nil {
			return "ok"
		}
		return err.Error()
	})
}

func TestStaticQuorumAndLabels(t *testing.T) {
	s, err := newStatic(t, ring.StaticConfig{LocalEndpoint: "b:1", Hashrings: `[
		{"tenants":["x"],"endpoints":["a:1","b:1"],"external_labels":{"cluster":"one"}},
		{"tenants":["y"],"endpoints":["a:1"]},
		{"tenants":["z*"],"tenant_matcher_type":"glob","endpoints":["a:1","b:1","c:1","d:1"]}]`}, 0)
	require.NoError(t, err)
	for id, want := range map[tenant.ID]struct{ copies, quorum int }{"x": {2, 2}, "y": {1, 1}, "zoo": {3, 2}} {
		v, err := s.View(id)
		require.NoError(t, err)
		set := v.Set(v.Owners(12345))
		require.Len(t, set.Owners, want.copies, id)
		require.Equal(t, want.quorum, set.Quorum, id)
		for _, i := range v.Instances() {
			require.Equal(t, i.Addr == "b:1", i.Local)
		}
	}
	_, err = s.View("other")
	require.Equal(t, refuse.UnknownTenant, refuse.ReasonOf(err))
	require.Equal(t, labels.FromStrings("cluster", "one"), s.ExternalLabels("x"))
	require.Equal(t, labels.EmptyLabels(), s.ExternalLabels("y"))
	require.Len(t, s.Instances(), 4)
}

func TestStaticKeepsWhatItHad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hashrings.json")
	write := func(s string) { require.NoError(t, os.WriteFile(file, []byte(s), 0o600)) }
	synctest.Test(t, func(t *testing.T) {
		write(`[{"endpoints":["a:1"]}]`)
		s, err := newStatic(t, ring.StaticConfig{HashringsFile: file}, 1)
		require.NoError(t, err)
		go func() { _ = s.Run(t.Context()) }()
		for _, step := range []struct{ content, owner string }{
			{`[{"endpoints":["b:1"]}]`, "b"},
			{`[{"endpoints":["c:1"`, "b"},
			{`[]`, "b"},
			{`[{"endpoints":["c:1"]}]`, "c"},
		} {
			write(step.content)
			time.Sleep(3 * time.Second)
			synctest.Wait()
			v, err := s.View("any")
			require.NoError(t, err)
			require.Equal(t, step.owner, owners(v, 1), step.content)
		}
		require.NoError(t, os.Remove(file))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		_, err = s.View("any")
		require.NoError(t, err)
	})
}

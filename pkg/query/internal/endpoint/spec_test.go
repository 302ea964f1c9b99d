package endpoint

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
)

func TestPlan(t *testing.T) {
	datadriven.RunTest(t, "testdata/plan", func(t *testing.T, d *datadriven.TestData) string {
		var specs []spec
		lookups := map[string]lookup{}
		for line := range strings.Lines(d.Input) {
			words := strings.Fields(line)
			switch words[0] {
			case "spec":
				specs = append(specs, spec{address: words[1], strict: slices.Contains(words, "strict"), group: slices.Contains(words, "group")})
			case "found":
				l := lookup{addresses: words[2:]}
				if n := len(words); words[n-1] == "error" {
					l = lookup{addresses: words[2 : n-1], err: errors.New("server misbehaving")}
				}
				lookups[words[1]] = l
			}
		}
		targets, duplicates := plan(specs, lookups)
		var out strings.Builder
		for _, tg := range targets {
			out.WriteString(tg.name)
			if tg.strict {
				out.WriteString(" strict")
			}
			if tg.err != nil {
				fmt.Fprintf(&out, " error: %s", tg.err)
			} else if tg.group {
				out.WriteString(" group " + strings.Join(tg.addresses, " "))
			}
			out.WriteString("\n")
		}
		if len(duplicates) > 0 {
			fmt.Fprintf(&out, "duplicates: %s\n", strings.Join(duplicates, " "))
		}
		return out.String()
	})
}

func defaults(t *testing.T, args ...string) (Config, error) {
	t.Helper()
	var c Config
	fs := flag.NewFlagSet("test", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	c.RegisterFlags(fs)
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	return c, c.Validate()
}

func TestFlags(t *testing.T) {
	for _, c := range []struct{ flags, wantErr string }{
		{"--endpoint=a:1 --endpoint=dns+b:2 --endpoint=dnssrv+c --endpoint-group=dns+d:3 --endpoint-strict=e:4 --endpoint-group-strict=f:5", ""},
		{"--endpoint=http://a:1", "--endpoint: address \"http://a:1\" is a URL"},
		{"--endpoint=a", "--endpoint: address \"a\" has no port"},
		{"--endpoint-strict=dns+a:1", "--endpoint-strict: address \"dns+a:1\": a strict endpoint must be given by its address"},
		{"--endpoint=dns+a", "has no port"},
		{"--endpoint=dnsdualstack+a:1", ""},
		{"--endpoint=foo+a:1", "prefix foo+ must be one of dns+, dnssrv+"},
		{"--grpc-compression=lz4", "must be one of none, snappy"},
		{"--grpc-client-tls-min-version=2", "must be one of 1.0, 1.1, 1.2, 1.3"},
		{"--grpc-client-tls-cert=x", "certificate and key must be given together"},
		{"--store.sd-dns-resolver=x", "--store.sd-dns-resolver=\"x\""},
		{"--store.sd-interval=0s", "--store.sd-interval=0s: must be above 0"},
		{"--store=a:1", "--store no longer exists: use --endpoint=a:1"},
		{"--rule=a:1", "use --endpoint=a:1"},
		{"--store-strict=a:1", "use --endpoint-strict=a:1"},
		{"--query.conn-metric.label=color", "must be one of external_labels"},
		{"--endpoint.sd-config=x --endpoint.sd-config-file=y", "are both set"},
	} {
		_, err := defaults(t, strings.Fields(c.flags)...)
		if c.wantErr == "" {
			require.NoError(t, err, c.flags)
			continue
		}
		require.ErrorContains(t, err, c.wantErr, c.flags)
	}
}

func TestSDConfig(t *testing.T) {
	base := ClientConfig{ClientTLS: storeapi.ClientTLS{MinVersion: "1.3", ServerName: "flag"}, Compression: "none"}
	specs, err := parseSD("f.yaml", []byte(`
default_client_config:
  tls_config:
    ca_file: ca.pem
  compression: snappy
endpoints:
- address: a:1
  strict: true
- address: dns+b:2
  group: true
  service_config: '{"loadBalancingConfig":[{"round_robin":{}}]}'
- address: c:3
  client_config:
    tls_config:
      enabled: false
    server_name: c
`), base)
	require.NoError(t, err)
	def := ClientConfig{ClientTLS: storeapi.ClientTLS{Secure: true, CAFile: "ca.pem", MinVersion: "1.3", ServerName: "flag"}, Compression: "snappy"}
	require.Equal(t, spec{address: "a:1", strict: true, client: def}, specs[0])
	require.True(t, specs[1].group)
	plain := def
	plain.Secure, plain.ServerName = false, "c"
	require.Equal(t, spec{address: "c:3", client: plain}, specs[2])

	for yaml, want := range map[string]string{
		"endpoints:\n- address: a:1\n  stritc: true\n":                       "f.yaml: yaml: unmarshal errors:\n  line 3: field stritc not found",
		"endpoints:\n- address: a:1\n- address: b\n":                         "f.yaml: line 3: address \"b\" has no port",
		"endpoints:\n- address: a:1\n  service_config: '{}'\n":               "service_config is for groups only",
		"endpoints:\n- address: dns+a:1\n  group: true\n  service_config: x": "line 2: address \"dns+a:1\": service_config:",
		"endpoints:\n- address: dns+a:1\n  strict: true\n":                   "a strict endpoint must be given by its address",
		"endpoints: [":         "f.yaml: yaml: line 1",
		"":                     "f.yaml is empty",
		"endpoints: []\n---\n": "more than one YAML document",
		"endpoints:\n- address: a:1\n  client_config: {compression: zip}\n": "must be one of none, snappy",
	} {
		_, err := parseSD("f.yaml", []byte(yaml), base)
		require.ErrorContains(t, err, want, yaml)
	}
}

func TestFileSD(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	addresses := func(f *fileSD) (out []string) {
		for _, s := range f.specs() {
			require.True(t, s.dynamic())
			out = append(out, s.address)
		}
		return out
	}
	now := time.Unix(1000, 0)
	f := &fileSD{patterns: []string{filepath.Join(dir, "*.json"), filepath.Join(dir, "*.yaml")}, interval: time.Minute}
	write("a.json", `[{"targets": ["a:1", "b:2"], "labels": {"x": "y"}}]`)
	write("b.yaml", "- targets:\n  - c:3\n")
	require.NoError(t, f.refresh(now))
	require.Equal(t, []string{"a:1", "b:2", "c:3"}, addresses(f))

	// A broken file keeps what it had, and says so; a file that is gone does not.
	write("a.json", `[{"targets": ["a:1", `)
	require.NoError(t, os.Remove(filepath.Join(dir, "b.yaml")))
	require.ErrorContains(t, f.refresh(now.Add(time.Second)), "a.json")
	require.Equal(t, []string{"a:1", "b:2"}, addresses(f))
	write("a.json", `[{"targets": ["http://a"]}]`)
	require.ErrorContains(t, f.refresh(now.Add(2*time.Second)), "is a URL")
	require.Equal(t, []string{"a:1", "b:2"}, addresses(f))
	write("a.json", `[]`)
	require.NoError(t, f.refresh(now.Add(3*time.Second)))
	require.Empty(t, addresses(f))
}

func TestHealth(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	dynamic, static := target{spec: spec{address: "dns+a:1"}}, target{spec: spec{address: "a:1"}}
	h := health{}.after(at(10), infoOf("sidecar"), nil)
	require.False(t, h.stale(dynamic, at(1e6), time.Minute))
	h = h.after(at(20), infoOf(""), errors.New("gone"))
	h = h.after(at(30), infoOf(""), errors.New("gone"))
	require.Equal(t, at(20), h.since)
	require.Equal(t, "sidecar", h.info.Component, "what it last told stays")
	require.False(t, h.stale(dynamic, at(79), time.Minute))
	require.True(t, h.stale(dynamic, at(80), time.Minute))
	require.False(t, h.stale(static, at(1e6), time.Minute), "an address that was given stays a hole")
	h = h.after(at(90), infoOf("store"), nil)
	require.False(t, h.stale(dynamic, at(1e6), time.Minute))
	require.Equal(t, "store", h.info.Component)
}

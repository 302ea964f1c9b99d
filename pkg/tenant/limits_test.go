package tenant

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
)

type testLimits struct {
	Rate   int               `yaml:"rate"`
	Window model.Duration    `yaml:"window"`
	Named  map[string]string `yaml:"named"`
	Nested struct {
		Series int `yaml:"series"`
	} `yaml:"nested"`
}

func (l *testLimits) Validate() error {
	if l.Rate < 0 {
		return os.ErrInvalid
	}
	return nil
}

func testForm() Form[testLimits] {
	return Form[testLimits]{Component: "test", Section: "write", Defaults: func() testLimits { return testLimits{Rate: 7} }}
}

const goodLimits = `
write:
  global: {max_concurrency: 5}
  default:
    window: 1h
    named: {a: x}
    nested: {series: 3}
  tenants:
    team-a:
      rate: 9
      named: {b: y}
    team-b: {}
`

func newTestLimits(t *testing.T, text string) (*Limits[testLimits], error) {
	return NewLimits(LimitsConfig{Content: text}, testForm(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

func TestLimitsLayers(t *testing.T) {
	l, err := newTestLimits(t, goodLimits)
	require.NoError(t, err)
	rest, a, b := l.Of("somebody"), l.Of("team-a"), l.Of("team-b")
	require.Equal(t, 7, rest.Rate, "what the file leaves out is as in Defaults")
	require.Equal(t, model.Duration(time.Hour), rest.Window)
	require.Equal(t, map[string]string{"a": "x"}, rest.Named, "a tenant's map is its own")
	require.Equal(t, 9, a.Rate)
	require.Equal(t, model.Duration(time.Hour), a.Window, "what a tenant leaves out is as in default")
	require.Equal(t, map[string]string{"a": "x", "b": "y"}, a.Named)
	require.Equal(t, 3, b.Nested.Series)
	require.True(t, l.Get().Listed("team-b"))
	require.False(t, l.Get().Listed("somebody"))

	none, err := newTestLimits(t, "")
	require.NoError(t, err)
	require.Equal(t, 7, none.Of("x").Rate)
}

func TestLimitsErrorsSayWhere(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"empty":          {"\n", `--limits-config:1: it is empty; write "write: {}" for no limits`},
		"section":        {"\nread: {}\n", `--limits-config:2: unknown key "read"; "write" is wanted`},
		"key":            {"write:\n  default:\n    rat: 1\n", `--limits-config:3: unknown key "rat"`},
		"key of section": {"write:\n  defaults:\n    rate: 1\n", `--limits-config:2: unknown key "defaults"`},
		"key of tenant":  {"write:\n  tenants:\n    a:\n      nested: {serie: 1}\n", `--limits-config:4: unknown key "serie"`},
		"tenant":         {"write:\n  tenants:\n    ../x: {}\n", `--limits-config:3: tenants: invalid tenant: "../x" has '/' at position 2; letters, digits and !_.*'()- are allowed`},
		"value":          {"write:\n  tenants:\n    a:\n      rate: -1\n", `--limits-config:3: tenant a: invalid argument`},
		"type":           {"write:\n  default:\n    rate: often\n", "--limits-config:3: cannot unmarshal !!str `often` into int"},
		"twice":          {"write:\n  tenants:\n    a: {}\n    a: {}\n", `--limits-config:4: mapping key "a" already defined at line 3`},
		"two documents":  {"write: {}\n---\nwrite: {}\n", "--limits-config: there is more than one document; one is wanted"},
		"no YAML":        {"write: [\n", "--limits-config:1: did not find expected node content"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newTestLimits(t, tc.text)
			require.EqualError(t, err, tc.want)
		})
	}
}

// good is the metric of the last reading.
func good(value string) string {
	return "# HELP firnline_test_config_last_reload_successful Whether the newest version of the limits is in force (1) or an older one (0).\n" +
		"# TYPE firnline_test_config_last_reload_successful gauge\nfirnline_test_config_last_reload_successful " + value + "\n"
}

func TestLimitsFollowTheirFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "limits.yaml")
		write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
		write(goodLimits)
		reg := prometheus.NewRegistry()
		l, err := NewLimits(LimitsConfig{File: path, Interval: model.Duration(time.Second)}, testForm(), slog.New(slog.DiscardHandler), reg)
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		before := l.Get()
		require.EqualValues(t, 1, before.Generation)

		// One tenant changes: another's limits stay the same to a pointer.
		write(goodLimits + "    team-c: {rate: 11}\n")
		time.Sleep(2 * time.Second)
		require.EqualValues(t, 2, l.Get().Generation)
		require.Equal(t, 11, l.Of("team-c").Rate)
		require.Same(t, before.Of("team-a"), l.Of("team-a"))
		require.Same(t, before.Of("x"), l.Of("x"))
		require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(good("1")), "firnline_test_config_last_reload_successful"))

		// A bad one changes nothing but the metric.
		write("write:\n  default: {rat: 1}\n")
		time.Sleep(2 * time.Second)
		require.EqualValues(t, 2, l.Get().Generation)
		require.Equal(t, 11, l.Of("team-c").Rate)
		require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(good("0")), "firnline_test_config_last_reload_successful"))
		require.Error(t, l.Reload(t.Context()))

		// Read on demand, without waiting.
		write("write:\n  default: {rate: 1}\n")
		require.NoError(t, l.Reload(t.Context()))
		require.EqualValues(t, 3, l.Get().Generation)
		require.Equal(t, 1, l.Of("team-c").Rate)
		require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(good("1")), "firnline_test_config_last_reload_successful"))
		require.NoError(t, l.Reload(t.Context()))
		require.EqualValues(t, 3, l.Get().Generation, "the same again is no new generation")

		stop()
		require.NoError(t, <-done)
	})
}

func FuzzLimits(f *testing.F) {
	f.Add(goodLimits)
	f.Add("write: {tenants: {a: &x {rate: 1}, b: *x}}")
	f.Add("write:\n  default: !!binary x\n")
	form := testForm()
	f.Fuzz(func(t *testing.T, text string) {
		set, _, err := form.parse("x", []byte(text))
		if (set == nil) == (err == nil) {
			t.Fatalf("limits %v, err %v", set, err)
		}
	})
}

package intake

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/firnline/firnline/pkg/ingest/internal/limits"
)

// TestDecide shows what becomes of series. A line of input is pairs "name=value", as sent.
func TestDecide(t *testing.T) {
	lim, split := limits.Defaults(), ""
	datadriven.RunTest(t, "testdata/decide", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "limits":
			lim, split = limits.Defaults(), ""
			if d.HasArg("split") {
				d.ScanArgs(t, "split", &split)
			}
			require.NoError(t, yaml.Unmarshal([]byte(d.Input), &lim))
			require.NoError(t, lim.Validate())
			return ""
		case "decide":
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				fmt.Fprintln(&out, show(newRules("team", &lim, split).decide(sent(line))))
			}
			return out.String()
		}
		t.Fatalf("unknown command %q", d.Cmd)
		return ""
	})
}

// sent makes labels without mending them.
func sent(line string) labels.Labels {
	b := labels.NewScratchBuilder(4)
	for _, pair := range strings.Fields(line) {
		name, value, _ := strings.Cut(pair, "=")
		unescape := strings.NewReplacer(`\xff`, "\xff", `\30`, strings.Repeat("x", 30))
		b.Add(unescape.Replace(name), unescape.Replace(value))
	}
	return b.Labels()
}

func show(f fate) string {
	switch {
	case f.err != nil:
		return "refused " + f.err.Error()
	case f.dropped:
		return "dropped"
	}
	out := f.labels.String()
	if f.tenant != "team" {
		out += " tenant " + string(f.tenant)
	}
	if f.cluster != "" {
		out += fmt.Sprintf(" replica %s of %s", f.replica, f.cluster)
	}
	return out
}

// TestHashOf: Thanos' receive computes the same (COMPAT A11); the numbers are xxhash64 of the bytes written out.
func TestHashOf(t *testing.T) {
	l := labels.FromStrings("__name__", "up", "job", "a")
	require.Equal(t, sum("t\xff__name__\xffup\xffjob\xffa\xff"), HashOf("t", l))
	long := labels.FromStrings("__name__", "up", "v", strings.Repeat("v", 5000))
	require.Equal(t, sum("t\xff__name__\xffup\xffv\xff"+strings.Repeat("v", 5000)+"\xff"), HashOf("t", long))
}

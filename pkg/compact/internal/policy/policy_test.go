package policy_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/policy"
)

const day = 24 * time.Hour

var defaults = policy.Tiers{Raw: 30 * day, FiveMinutes: 180 * day}

// In golden files "parse" reads a policy file and prints its rules, "validate"
// adds what downsampling says to it, with the flags given as arguments. "for"
// prints how long series are kept, "classes" what may be in a block with some
// external labels; both go by the file read last.
func TestPolicy(t *testing.T) {
	var p *policy.Policy
	datadriven.RunTest(t, "testdata/policy", func(t *testing.T, d *datadriven.TestData) string {
		tiers := defaults
		argDuration(t, d, "raw", &tiers.Raw)
		argDuration(t, d, "5m", &tiers.FiveMinutes)
		argDuration(t, d, "1h", &tiers.OneHour)
		switch d.Cmd {
		case "parse":
			var err error
			if p, err = policy.Parse("retention.yaml", []byte(d.Input), tiers); err != nil {
				return err.Error() + "\n"
			}
			return format(p)
		case "validate":
			p, err := policy.Parse("retention.yaml", []byte(d.Input), tiers)
			require.NoError(t, err)
			if err := p.Validate(); err != nil {
				return err.Error() + "\n"
			}
			return "ok\n"
		case "for":
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				lset := parseLabels(t, line)
				fmt.Fprintf(&out, "%s raw %s, 5m %s, 1h %s\n", lset, model.Duration(p.For(lset, 0)),
					model.Duration(p.For(lset, block.Resolution5m)), model.Duration(p.For(lset, block.Resolution1h)))
			}
			return out.String()
		case "classes":
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				external := parseLabels(t, line)
				fmt.Fprintf(&out, "%s\n", external)
				for _, c := range p.Classes(external) {
					fmt.Fprintf(&out, "  %s: raw %s\n", c, model.Duration(c.Tiers().Raw))
				}
			}
			return out.String()
		}
		t.Fatalf("unknown command %q", d.Cmd)
		return ""
	})
}

func argDuration(t *testing.T, d *datadriven.TestData, name string, into *time.Duration) {
	if d.HasArg(name) {
		var s string
		d.ScanArgs(t, name, &s)
		v, err := model.ParseDuration(s)
		require.NoError(t, err)
		*into = time.Duration(v)
	}
}

func parseLabels(t *testing.T, s string) labels.Labels {
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, pair := range strings.Fields(s) {
		k, v, ok := strings.Cut(pair, "=")
		require.True(t, ok, s)
		b.Set(k, v)
	}
	return b.Labels()
}

func format(p *policy.Policy) string {
	var out strings.Builder
	fmt.Fprintf(&out, "tenant label %s\n", p.TenantLabel)
	for _, r := range p.Rules {
		fmt.Fprintf(&out, "line %d: tenant=%q selectors=%v raw %s, 5m %s, 1h %s\n", r.Line, r.Tenant, r.Selectors,
			model.Duration(r.Tiers.Raw), model.Duration(r.Tiers.FiveMinutes), model.Duration(r.Tiers.OneHour))
	}
	return out.String()
}

// TestClassesTwin: whatever the external labels, a series belongs to exactly one
// of the classes that may be in its block, the one whose tiers For gives it.
func TestClassesTwin(t *testing.T) {
	const seed = 7
	rnd := rand.New(rand.NewPCG(seed, 0))
	names, values := []string{"tenant_id", "namespace", "job"}, []string{"a", "b", "c"}
	random := func() labels.Labels {
		b := labels.NewBuilder(labels.EmptyLabels())
		for _, n := range names {
			if rnd.IntN(2) == 0 {
				b.Set(n, values[rnd.IntN(len(values))])
			}
		}
		return b.Labels()
	}
	for round := range 2000 {
		var file strings.Builder
		fmt.Fprintln(&file, "rules:")
		for i := range rnd.IntN(5) + 1 {
			fmt.Fprintf(&file, "- raw: %dd\n", i+1)
			if rnd.IntN(2) == 0 {
				fmt.Fprintf(&file, "  tenant: %s\n", values[rnd.IntN(len(values))])
				if rnd.IntN(2) == 0 {
					continue
				}
			}
			op := []string{"=", "!=", "=~", "!~"}[rnd.IntN(4)]
			fmt.Fprintf(&file, "  selectors: ['{%s%s\"%s\"}', '{job=\"a\",namespace!~\"b|c\"}']\n", names[rnd.IntN(3)], op, values[rnd.IntN(3)])
		}
		p, err := policy.Parse("f", []byte(file.String()), defaults)
		require.NoError(t, err, file.String())

		external, series := random(), random()
		full := labels.NewBuilder(series)
		external.Range(func(l labels.Label) { full.Set(l.Name, l.Value) })
		lset, matched := full.Labels(), 0
		for _, c := range p.Classes(external) {
			if c.Matches(lset) {
				matched++
				require.Equal(t, p.For(lset, 0), c.Tiers().Raw, "seed %d round %d\n%s%s", seed, round, file.String(), lset)
			}
		}
		require.Equal(t, 1, matched, "seed %d round %d: %s in %s\n%s", seed, round, lset, external, file.String())
	}
}

// TestClassNames: a name says what the class selects, so that what is recorded
// under it in a block stays true for as long as the name is the same.
func TestClassNames(t *testing.T) {
	names := func(file string) []string {
		p, err := policy.Parse("f", []byte(file), defaults)
		require.NoError(t, err)
		var out []string
		for _, c := range p.Classes(labels.FromStrings("cluster", "eu")) {
			out = append(out, c.Name)
		}
		return out
	}
	dev, test := "- {selectors: ['{ns=\"dev\"}'], raw: 7d}\n", "- {selectors: ['{ns=\"test\"}'], raw: 7d}\n"
	base := names("rules:\n" + dev)
	require.Equal(t, base, names("rules:\n"+strings.Replace(dev, "7d", "9d", 1)), "the time it is kept is not in the name")
	require.Equal(t, base[0], names("rules:\n" + dev + test)[0], "a rule further down takes nothing away")
	require.NotEqual(t, base[1], names("rules:\n" + dev + test)[2], "but the default has fewer series then")
	require.NotEqual(t, base[0], names("rules:\n" + test + dev)[1], "and so has a rule further down")
	require.NotEqual(t, base, names("tenant_label: t\nrules:\n"+dev))
}

// FuzzParse: any file gives a policy or an error that names it, never a panic.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "rules:", "rules: []", "tenant_label: x\nrules:\n- tenant: a\n  raw: 1d\n",
		"rules:\n- selectors: ['{a=\"b\"}', '{c=~\"d|e\"}']\n  5m: forever\n  1h: 0d\n",
		"rules:\n- &x {tenant: a, raw: 1d}\n- *x\n", "rules:\n- <<: {tenant: a}\n  raw: 1d\n", "a: b", "rules: {a: b}", "---\n---\n",
		"rules:\n- tenant: [a]\n  raw: {}\n", "rules:\n- null\n", "\xff", "rules:\n- selectors: ['{']\n  raw: -1d\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := policy.Parse("f.yaml", data, defaults)
		if err != nil {
			require.True(t, strings.HasPrefix(err.Error(), "f.yaml:"), err.Error())
			return
		}
		_ = p.Validate()
		for _, c := range p.Classes(labels.FromStrings("tenant_id", "a")) {
			require.GreaterOrEqual(t, c.Tiers().Raw, time.Duration(0))
			_ = c.String()
		}
		p.For(labels.FromStrings("a", "b"), 0)
	})
}

package intake

import (
	"strings"

	"github.com/prometheus/common/model"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/tenant"
)

// describe gives each Part what the sender says about metrics. Where a label
// names the tenant of each series, a tenant gets what is about metrics of its own
// series in this request alone: it must not learn of the metrics of others.
func (c *call) describe(parts []Part) {
	all := c.batch.Families
	if len(all) == 0 {
		return
	}
	if c.cat.rules.split == "" {
		for i := range parts {
			parts[i].Families = all
		}
		return
	}
	names := c.familyNames()
	for i := range parts {
		own := names[parts[i].Tenant]
		for _, f := range all {
			if _, ok := own[f.Name]; ok {
				parts[i].Families = append(parts[i].Families, f)
			}
		}
	}
}

// nameSet is names of metric families.
type nameSet map[string]struct{}

// familyNames are the names that families of the series that are taken may have, by tenant.
func (c *call) familyNames() map[tenant.ID]nameSet {
	out := map[tenant.ID]nameSet{}
	all, dir := c.cat.load(), c.cat.entries.load()
	var last *metric
	add := func(i, class uint32) {
		m := all[class].metric
		if m == nil || m == last && m.name != "" {
			return
		}
		last = m
		if out[m.owner.id] == nil {
			out[m.owner.id] = nameSet{}
		}
		out[m.owner.id].add(c.nameOf(m, i))
	}
	for i := range c.batch.Series {
		id := c.batch.Series[i].ID
		if id == 0 || len(c.owners) > 0 && c.owners[i] != c.cat.self {
			continue // its number is not ours
		}
		if e := at(dir, uint32(id)); e != nil {
			add(uint32(i), classOf(e.word.Load()))
		}
	}
	for _, sp := range c.special {
		if o := c.owners[sp.series]; o != nil && o != c.cat.self {
			add(sp.series, sp.class)
		}
	}
	return out
}

// nameOf is the name of a series' metric, also of one that is not counted by itself.
func (c *call) nameOf(m *metric, series uint32) string {
	if m.name != "" {
		return m.name
	}
	l, _ := c.batch.Labels(int(series)) // without them it has no family
	return l.Get(model.MetricNameLabel)
}

// add adds a metric's name, and what the family is called of which it may be a part.
func (s nameSet) add(name string) {
	s[name] = struct{}{}
	for _, suffix := range []string{"_bucket", "_sum", "_count", "_gsum", "_gcount", "_total", "_created", "_info"} {
		if family, ok := strings.CutSuffix(name, suffix); ok && family != "" {
			s[family] = struct{}{}
		}
	}
}

// Batch is what of a request's batch its owners are to be sent: all its columns, and the Part's families.
func (p *Part) Batch(b *batch.Batch) *batch.Batch {
	if len(p.Families) == len(b.Families) {
		return b
	}
	return &batch.Batch{Series: b.Series, Floats: b.Floats, Histograms: b.Histograms, Exemplars: b.Exemplars, Families: p.Families, Labels: b.Labels}
}

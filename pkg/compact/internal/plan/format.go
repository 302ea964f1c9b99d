package plan

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/firnline/firnline/pkg/compact/internal/policy"
)

// Format writes a plan for people: what would be done, and why. Parts that are
// empty are left out, and of long ones all but so many rows.
func Format(p Plan, rows int) string {
	var out strings.Builder
	w := table{tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0), rows}
	section(w, "JOBS", "JOB\tGROUP\tBLOCKS\tSIZE\tRESULTS\tWHY", p.Jobs, func(j Job) string {
		return fmt.Sprintf("%s\t%s %s\t%d\t%s\t%s\t%s", j.Kind, j.Group, j.Labels, len(j.Inputs), bytes(j.InputBytes), results(j), j.Why)
	})
	section(w, "GARBAGE", "BLOCK\tWHY", p.Garbage, func(m Mark) string { return fmt.Sprintf("%s\t%s", m.Block, m.Why) })
	section(w, "EXPIRED", "BLOCK\tWHY", p.Expired, func(m Mark) string { return fmt.Sprintf("%s\t%s", m.Block, m.Why) })
	section(w, "HELD", "BLOCK\tGROUP\tEXPIRED\tWHY", p.Held, func(h Held) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s", h.Block, h.Group, clock(h.Since.UnixMilli()), h.Why)
	})
	section(w, "SET ASIDE", "BLOCK\tGROUP\tWHY", p.SetAside, func(s SetAside) string { return fmt.Sprintf("%s\t%s\t%s", s.Block, s.Group, s.Why) })
	section(w, "RESTING", "GROUP\tUNTIL\tWHY", p.Resting, func(r Resting) string {
		return fmt.Sprintf("%s\t%s\t%s", r.Group, clock(r.Until.UnixMilli()), r.Why)
	})
	if n := len(p.Remove); n > 0 {
		fmt.Fprintf(w, "REMOVE %s marked for long enough\n", count(n, "block"))
	}
	if n := len(p.Partial); n > 0 {
		fmt.Fprintf(w, "REMOVE %s left without meta.json\n", count(n, "partial block"))
	}
	if n := len(p.DeletesDone); n > 0 {
		fmt.Fprintf(w, "DONE %s\n", count(n, "delete request"))
	}
	section(w, "COVERAGE", "GROUP\tLABELS\tRESOLUTION\tFROM\tTO\tBLOCKS\tSIZE", p.Coverage, func(c Coverage) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%d\t%s", c.Group, c.Labels, policy.ResolutionName(c.Resolution), clock(c.MinTime), clock(c.MaxTime), c.Blocks, bytes(c.Bytes))
	})
	if err := w.Flush(); err != nil {
		panic(err) // a strings.Builder takes everything
	}
	if out.Len() == 0 {
		return "nothing to do: there are no blocks\n"
	}
	return out.String()
}

// results lists the resolutions that a job writes.
func results(j Job) string {
	var out []string
	for _, o := range j.Outputs {
		out = append(out, policy.ResolutionName(o.Meta.Resolution()))
	}
	return strings.Join(out, "+")
}

// table is what sections are written to.
type table struct {
	*tabwriter.Writer
	rows int // of a section, at most
}

// section writes a heading with a count and a table; nothing for an empty list.
func section[T any](w table, title, head string, rows []T, row func(T) string) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(w, "%s %d\n  %s\n", title, len(rows), head)
	for _, r := range rows[:min(len(rows), w.rows)] {
		fmt.Fprintf(w, "  %s\n", row(r))
	}
	if more := len(rows) - w.rows; more > 0 {
		fmt.Fprintf(w, "  … and %d more\n", more)
	}
}

// bytes writes a size in the largest unit that leaves a digit before the point.
func bytes(n int64) string {
	const step = 1024
	if n < step {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/step, 0
	for v >= step && unit < 4 {
		v, unit = v/step, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[unit])
}

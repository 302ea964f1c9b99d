package tools

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Line is a series to be plotted.
type Line struct {
	Name   string
	Times  []time.Time
	Values []float64
}

// marks are how lines are told apart; where there are more, they begin anew.
const marks = "*+ox#@%&=~"

// Plot draws lines over time into width by height letters, with axes and a legend.
// Values that aren't numbers leave holes.
func Plot(lines []Line, width, height int) string {
	lo, hi, from, to := bounds(lines)
	if math.IsInf(lo, 0) {
		return "no samples\n"
	}
	grid := make([][]byte, height)
	for y := range grid {
		grid[y] = []byte(strings.Repeat(" ", width))
	}
	for i, l := range lines {
		for j, v := range l.Values {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				continue
			}
			x := place(l.Times[j].Sub(from).Seconds(), to.Sub(from).Seconds(), width)
			grid[height-1-place(v-lo, hi-lo, height)][x] = marks[i%len(marks)]
		}
	}
	var b strings.Builder
	for y, row := range grid {
		label := strings.Repeat(" ", axisWidth)
		switch y {
		case 0:
			label = fmt.Sprintf("%*s", axisWidth, axisValue(hi))
		case height - 1:
			label = fmt.Sprintf("%*s", axisWidth, axisValue(lo))
		}
		fmt.Fprintf(&b, "%s |%s\n", label, strings.TrimRight(string(row), " "))
	}
	const form = "2006-01-02 15:04:05"
	fmt.Fprintf(&b, "%s +%s\n", strings.Repeat(" ", axisWidth), strings.Repeat("-", width))
	start, end := from.UTC().Format(form), to.UTC().Format(form)
	fmt.Fprintf(&b, "%s  %s%s%s\n", strings.Repeat(" ", axisWidth), start, strings.Repeat(" ", max(1, width-len(start)-len(end))), end)
	for i, l := range lines {
		fmt.Fprintf(&b, "%s  %c %s\n", strings.Repeat(" ", axisWidth), marks[i%len(marks)], l.Name)
	}
	return b.String()
}

const axisWidth = 10

func axisValue(v float64) string { return fmt.Sprintf("%.4g", v) }

// place is where a part of a whole lies among n places.
func place(part, whole float64, n int) int {
	if whole <= 0 {
		return 0
	}
	return min(max(int(part/whole*float64(n-1)+0.5), 0), n-1)
}

// bounds are the least and the largest of values and times; infinite where there are none.
func bounds(lines []Line) (lo, hi float64, from, to time.Time) {
	lo, hi = math.Inf(1), math.Inf(-1)
	for _, l := range lines {
		for i, v := range l.Values {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				continue
			}
			lo, hi = min(lo, v), max(hi, v)
			if from.IsZero() || l.Times[i].Before(from) {
				from = l.Times[i]
			}
			if l.Times[i].After(to) {
				to = l.Times[i]
			}
		}
	}
	return lo, hi, from, to
}

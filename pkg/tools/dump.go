package tools

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/tools/internal/localblock"
)

// Forms in which samples are written as text.
const (
	FormatOpenMetrics = "openmetrics" // floats of raw blocks; ends in # EOF
	FormatJSON        = "jsonl"       // a series a line, as VictoriaMetrics' import takes it; histograms, too
)

// AggregateLabel is the label by which the aggregates of downsampled series are
// told apart in a dump.
const AggregateLabel = "__aggregate__"

// Dump writes the samples of local blocks as text.
type Dump struct {
	Matchers         []*labels.Matcher // of all labels, external ones included
	MinTime, MaxTime int64             // ms, both inclusive
	Format           string
	External         bool // add external labels
}

// Dumped is what a dump came to.
type Dumped struct {
	Series, Samples uint64
	Histograms      uint64 // samples that the format has no room for
}

// Blocks writes the series of blocks that have the same external labels and
// resolution, in order of labels, with the samples of all blocks in order of time;
// of samples of equal time the first block's counts.
func (d *Dump) Blocks(ctx context.Context, w io.Writer, dirs []string) (out Dumped, err error) {
	o := &dumper{Dump: d, w: bufio.NewWriterSize(w, 1<<20), told: &out}
	if err := o.all(ctx, dirs); err != nil {
		return out, err
	}
	return out, o.w.Flush()
}

// End writes what stands behind all samples.
func (d *Dump) End(w io.Writer) error {
	if d.Format != FormatOpenMetrics {
		return nil
	}
	_, err := io.WriteString(w, "# EOF\n")
	return err
}

// dumper is one dump on its way.
type dumper struct {
	*Dump
	w    *bufio.Writer
	told *Dumped
}

// cursor is where in a block's series a merge is.
type cursor struct {
	block *localblock.Block
	next  func() (localblock.Series, error, bool)
	at    localblock.Series
}

func (o *dumper) all(ctx context.Context, dirs []string) (err error) {
	var open []*cursor
	for _, dir := range dirs {
		b, err := localblock.Open(dir)
		if err != nil {
			return err
		}
		defer b.Close()
		rest, ok := block.MatchExternal(b.Meta.Labels(), o.Matchers)
		if !ok || !b.Meta.Overlaps(o.MinTime, o.MaxTime) {
			continue
		}
		next, stop := iter.Pull2(b.All(ctx, rest...))
		defer stop()
		open = append(open, &cursor{block: b, next: next})
	}
	if open, err = advance(open, open); err != nil {
		return err
	}
	for len(open) > 0 {
		same := lowest(open)
		if err := o.series(same); err != nil {
			return err
		}
		if open, err = advance(open, same); err != nil {
			return err
		}
	}
	return nil
}

// lowest returns the cursors that stand at the series that comes first.
func lowest(open []*cursor) []*cursor {
	same := open[:1:1]
	for _, c := range open[1:] {
		switch d := labels.Compare(c.at.Labels, same[0].at.Labels); {
		case d < 0:
			same = []*cursor{c}
		case d == 0:
			same = append(same, c)
		}
	}
	return same
}

// advance moves cursors on and returns those of open that aren't at their end.
func advance(open, move []*cursor) ([]*cursor, error) {
	ended := map[*cursor]bool{}
	for _, c := range move {
		s, err, ok := c.next()
		if err != nil {
			return nil, err
		}
		c.at, ended[c] = s, !ok
	}
	var out []*cursor
	for _, c := range open {
		if !ended[c] {
			out = append(out, c)
		}
	}
	return out, nil
}

// series writes one series that several blocks may have.
func (o *dumper) series(same []*cursor) error {
	b := same[0].block
	lset := same[0].at.Labels
	if o.External {
		lset = withExternal(lset, b.Meta.Labels())
	}
	if b.Meta.Resolution() != block.ResolutionRaw {
		return o.aggregates(lset, same)
	}
	var its []chunkenc.Iterator
	for _, c := range same {
		it, err := c.block.Samples(c.at.Chunks)
		if err != nil {
			return err
		}
		its = append(its, it)
	}
	return o.write(lset, storage.ChainSampleIteratorFromIterators(nil, its))
}

// aggregates writes a downsampled series as one of each aggregate.
func (o *dumper) aggregates(lset labels.Labels, same []*cursor) error {
	for t, name := range []string{"count", "sum", "min", "max", "counter"} {
		var its []chunkenc.Iterator
		for _, c := range same {
			for _, m := range c.at.Chunks {
				loaded, err := c.block.Load(m)
				if err != nil {
					return err
				}
				a, ok := loaded.(*localblock.Aggregate)
				if !ok {
					return fmt.Errorf("block %s: chunk %d: %w: raw samples in a downsampled block", c.block.Meta.ULID, m.Ref, block.ErrCorrupt)
				}
				it, err := a.Sub(downsample.Type(t))
				if err != nil {
					return err
				}
				its = append(its, it)
			}
		}
		b := labels.NewBuilder(lset)
		b.Set(AggregateLabel, name)
		if err := o.write(b.Labels(), storage.ChainSampleIteratorFromIterators(nil, its)); err != nil {
			return err
		}
	}
	return nil
}

// line is a series as JSON.
type line struct {
	Metric     map[string]string `json:"metric"`
	Values     []number          `json:"values,omitempty"`
	Timestamps []int64           `json:"timestamps,omitempty"`
	Histograms []histogramAt     `json:"histograms,omitempty"`
}

type histogramAt struct {
	Timestamp int64  `json:"timestamp"`
	Histogram string `json:"histogram"`
}

// number is a float; what JSON has no number for is a string, as in Prometheus' API.
type number float64

// MarshalJSON implements json.Marshaler.
func (n number) MarshalJSON() ([]byte, error) {
	f := float64(n)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return []byte(strconv.Quote(floatText(f))), nil
	}
	return strconv.AppendFloat(nil, f, 'g', -1, 64), nil
}

func floatText(f float64) string {
	if math.IsInf(f, 1) {
		return "+Inf"
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// write writes the samples of a series in the interval.
func (o *dumper) write(lset labels.Labels, it chunkenc.Iterator) error {
	var l line
	prefix := ""
	for vt := first(it, o.MinTime); vt != chunkenc.ValNone && it.AtT() <= o.MaxTime; vt = it.Next() {
		switch {
		case vt == chunkenc.ValFloat && o.Format == FormatOpenMetrics:
			if prefix == "" {
				prefix = openMetricsName(lset)
			}
			t, v := it.At()
			o.told.Samples++
			if _, err := fmt.Fprintf(o.w, "%s %s %s\n", prefix, floatText(v), seconds(t)); err != nil {
				return err
			}
		case vt == chunkenc.ValFloat:
			t, v := it.At()
			l.Values, l.Timestamps = append(l.Values, number(v)), append(l.Timestamps, t)
		case o.Format == FormatOpenMetrics:
			o.told.Histograms++
		default:
			t, h := it.AtFloatHistogram(nil)
			l.Histograms = append(l.Histograms, histogramAt{t, h.String()})
		}
	}
	if it.Err() != nil {
		return it.Err()
	}
	return o.finish(lset, &l, prefix != "")
}

// first goes to the first sample that counts.
func first(it chunkenc.Iterator, mint int64) chunkenc.ValueType {
	if mint == math.MinInt64 {
		return it.Next()
	}
	return it.Seek(mint)
}

// finish counts the series and writes its line, if it has one.
func (o *dumper) finish(lset labels.Labels, l *line, written bool) error {
	n := len(l.Values) + len(l.Histograms)
	if n == 0 && !written {
		return nil
	}
	o.told.Series++
	o.told.Samples += uint64(n)
	if n == 0 {
		return nil
	}
	l.Metric = lset.Map()
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	_, err = o.w.Write(append(data, '\n'))
	return err
}

// openMetricsName writes labels as OpenMetrics has them.
func openMetricsName(lset labels.Labels) string {
	var b strings.Builder
	name := lset.Get(model.MetricNameLabel)
	plain := isPlain(name)
	if plain {
		b.WriteString(name)
	}
	b.WriteByte('{')
	n := 0
	add := func(s string) {
		if n++; n > 1 {
			b.WriteByte(',')
		}
		b.WriteString(s)
	}
	if !plain && name != "" {
		add(quoted(name))
	}
	lset.Range(func(l labels.Label) {
		if l.Name == model.MetricNameLabel {
			return
		}
		label := l.Name
		if !isPlain(label) {
			label = quoted(label)
		}
		add(label + "=" + quoted(l.Value))
	})
	b.WriteByte('}')
	return b.String()
}

func isPlain(name string) bool {
	for i, r := range name {
		if r != '_' && r != ':' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

// quoted escapes what OpenMetrics does.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

// seconds writes ms as seconds, to the ms.
func seconds(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64) }

// ErrFormat refuses a form of text that isn't known.
var ErrFormat = errors.New("want " + FormatOpenMetrics + " or " + FormatJSON)

// CheckFormat tells whether samples can be written so.
func CheckFormat(format string) error {
	if format != FormatOpenMetrics && format != FormatJSON {
		return fmt.Errorf("--format=%q: %w", format, ErrFormat)
	}
	return nil
}

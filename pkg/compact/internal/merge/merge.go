package merge

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/input"
	"github.com/firnline/firnline/pkg/compact/internal/output"
	"github.com/firnline/firnline/pkg/dedup"
)

// Source is a block to be merged, and whose it is: blocks of equal Replica are
// of one replica. Where all are equal nothing is deduplicated.
type Source struct {
	Block   *input.Block
	Replica uint64
}

// Target is a block to be written into Dir, a folder that is empty or missing.
// Its Resolution, in ms, is that of the sources, or coarser.
type Target struct {
	Resolution int64
	Dir        string
}

// Config says what becomes of the sources.
type Config struct {
	Dedup      dedup.Kind
	Resolution int64 // of all sources, ms
	// From and To bound the series by their labels, From inclusive, To exclusive.
	// Empty: no bound.
	From, To labels.Labels
	// Samples outside [MinTime, MaxTime), in ms, are left out and counted. Both
	// zero: none are.
	MinTime, MaxTime int64
	// Cut tells what is to go of a series, whose labels come without external
	// ones: all of it, or the samples within intervals. nil: nothing.
	Cut func(labels.Labels) (drop bool, cuts tombstones.Intervals)
	// KeepStartTimestamps lets what is encoded anew keep them, in encodings which
	// others can't read. Chunks that are copied keep theirs in any case.
	KeepStartTimestamps bool
	Targets             []Target
	Progress            func(readBytes int64) // called now and then; may be nil
	Output              output.Config
}

// Report is what has become of the sources.
type Report struct {
	Targets []TargetReport // in the order of Config.Targets
	Counts
	Reads input.Reads
}

// TargetReport is one block. Without series it has no folder.
type TargetReport struct {
	Stats            block.Stats
	Content          *block.Content // nil without series
	MinTime, MaxTime int64          // of its samples, ms, both inclusive
}

func (r *TargetReport) add(chunks []input.Chunk) {
	r.MinTime = min(r.MinTime, chunks[0].MinTime)
	r.MaxTime = max(r.MaxTime, chunks[len(chunks)-1].MaxTime)
}

// Counts says how the samples went. Of sources of one replica
// SamplesIn = SamplesOut + SamplesEqual + SamplesCut, which Run checks.
type Counts struct {
	Series  uint64 // read; one of several sources counts once
	Dropped uint64 // of those, without anything left

	// Chunks of the sources' resolution.
	Read    uint64 // bytes read, checksum compared
	Decoded uint64
	Copied  uint64 // written as they were
	Encoded uint64 // written anew
	Equal   uint64 // left out as copies of another one
	Empty   uint64 // left out since they had no sample
	Cut     uint64 // left out unread, since all of them was to go
	Passed  uint64 // left out unread, since another replica had all of their time
	Mended  uint64 // not what the index said: times or order put right
	Outside uint64 // with times outside their block's own range; kept

	// Samples, of aggregate chunks windows.
	SamplesIn    uint64
	SamplesOut   uint64
	SamplesEqual uint64 // left out since there was one of that time
	SamplesCut   uint64
}

func (c *Counts) add(o *Counts) {
	c.Series += o.Series
	c.Dropped += o.Dropped
	c.Read += o.Read
	c.Decoded += o.Decoded
	c.Copied += o.Copied
	c.Encoded += o.Encoded
	c.Equal += o.Equal
	c.Empty += o.Empty
	c.Cut += o.Cut
	c.Passed += o.Passed
	c.Mended += o.Mended
	c.Outside += o.Outside
	c.SamplesIn += o.SamplesIn
	c.SamplesOut += o.SamplesOut
	c.SamplesEqual += o.SamplesEqual
	c.SamplesCut += o.SamplesCut
}

// Run merges the sources into the targets. An error that is the fault of one
// source is an *input.Error. After an error the targets' folders are gone.
func Run(ctx context.Context, cfg Config, sources []Source) (_ Report, err error) {
	m, err := newMerge(ctx, cfg, sources)
	if err != nil {
		return Report{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.abort())
		}
	}()
	if err := m.run(ctx); err != nil {
		return Report{}, m.blame(err)
	}
	if err := m.close(); err != nil {
		return Report{}, err
	}
	return m.report, nil
}

// merging is one Run.
type merging struct {
	cfg     Config
	sources []Source // the order in which samples of one time are preferred
	syms    *output.Symbols
	remaps  [][]uint32
	targets []*target
	series  *series
	report  Report
}

// newMerge reads the symbols and begins the targets.
func newMerge(ctx context.Context, cfg Config, sources []Source) (_ *merging, err error) {
	m := &merging{cfg: cfg, sources: byAge(sources)}
	symbols := make([]output.SymbolSource, len(sources))
	blocks := make([]chunkReader, len(sources))
	for i, s := range m.sources {
		symbols[i], blocks[i] = s.Block.Symbols(ctx), s.Block
	}
	if err := m.unite(symbols); err != nil {
		return nil, err
	}
	m.report.Targets = make([]TargetReport, len(cfg.Targets))
	for i, t := range cfg.Targets {
		w, err := output.Create(t.Dir, m.syms, cfg.Output)
		if err != nil {
			return nil, errors.Join(err, m.abort())
		}
		m.report.Targets[i] = TargetReport{MinTime: math.MaxInt64, MaxTime: math.MinInt64}
		m.targets = append(m.targets, &target{Target: t, w: w, report: &m.report.Targets[i]})
	}
	if m.series, err = newSeries(cfg, newChunkSource(ctx, blocks, cfg.Resolution > 0), m.targets); err != nil {
		return nil, errors.Join(err, m.abort())
	}
	for _, s := range m.sources {
		m.series.owners = append(m.series.owners, owner{replica: s.Replica, meta: s.Block.Meta()})
	}
	return m, nil
}

// unite makes one table of the symbols of all sources.
func (m *merging) unite(symbols []output.SymbolSource) (err error) {
	m.syms, m.remaps, err = output.MergeSymbols(symbols...)
	var of *output.SourceError
	if errors.As(err, &of) {
		return m.blame(&sourceError{src: of.Source, err: of.Err})
	}
	return err
}

// progressSeries is how many series there are between two reports of progress.
const progressSeries = 1024

func (m *merging) run(ctx context.Context) error {
	w, err := m.begin(ctx)
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		group, err := w.next(ctx)
		if err != nil {
			return err
		}
		if len(group) == 0 {
			break
		}
		if err := m.series.merge(m.syms, group); err != nil {
			return fmt.Errorf("series %s: %w", stringsOf(m.syms, group[0].labels), err)
		}
		if n%progressSeries == 0 && m.cfg.Progress != nil {
			m.cfg.Progress(m.reads().Bytes)
		}
	}
	m.report.Counts, m.report.Reads = m.series.total, m.reads()
	return nil
}

// begin moves the sources to the first series wanted.
func (m *merging) begin(ctx context.Context) (*walk, error) {
	heads := make([]*head, len(m.sources))
	from := newBound(m.syms, m.cfg.From)
	if len(from) == 0 {
		m.readAhead(ctx)
	}
	for i, s := range m.sources {
		heads[i] = &head{src: i, series: s.Block, remap: m.remaps[i]}
		if len(from) == 0 {
			continue
		}
		var scratch []input.Label
		err := s.Block.Seek(ctx, func(s *input.Series) (before bool, err error) {
			if scratch, err = remapped(scratch[:0], s.Labels, m.remaps[i]); err != nil {
				return false, err
			}
			return from.compare(scratch) < 0, nil
		})
		if err != nil {
			return nil, &sourceError{src: i, err: err}
		}
	}
	return newWalk(ctx, m.syms, newBound(m.syms, m.cfg.To), heads)
}

// readAhead has what is at the beginning of all sources read at once: each takes
// a few requests, and a bucket its time for each. Of replicas some may be passed
// over, and their chunks are left until they are wanted.
func (m *merging) readAhead(ctx context.Context) {
	chunks := len(m.targets) > 0 && !slices.ContainsFunc(m.sources, func(s Source) bool { return s.Replica != m.sources[0].Replica })
	blocks := make([]*input.Block, len(m.sources))
	for i, s := range m.sources {
		blocks[i] = s.Block
	}
	input.Begin(ctx, blocks, chunks)
}

func (m *merging) reads() (sum input.Reads) {
	for _, s := range m.sources {
		r := s.Block.Reads()
		sum.Requests += r.Requests
		sum.Bytes += r.Bytes
	}
	return sum
}

// blame makes an *input.Error of one that is known to be of a source.
func (m *merging) blame(err error) error {
	var of *sourceError
	var named *input.Error
	if !errors.As(err, &of) || errors.As(err, &named) {
		return err
	}
	return &input.Error{Block: m.sources[of.src].Block.Meta().ULID, Err: err}
}

// close finishes the targets, and removes those without series.
func (m *merging) close() error {
	for i, t := range m.targets {
		r := &m.report.Targets[i]
		if r.MinTime > r.MaxTime {
			*r = TargetReport{}
			if err := t.w.Abort(); err != nil {
				return err
			}
			continue
		}
		stats, err := t.w.Close()
		if err != nil {
			return err
		}
		r.Stats, r.Content = stats, t.w.Content()
	}
	return nil
}

// abort removes what was written.
func (m *merging) abort() error {
	var err error
	for _, t := range m.targets {
		err = errors.Join(err, t.w.Abort())
	}
	return err
}

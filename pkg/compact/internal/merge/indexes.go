package merge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/input"
	"github.com/firnline/firnline/pkg/compact/internal/output"
)

// ErrOverlap tells that chunks of one series overlap, so that segments can't
// stay as they are.
var ErrOverlap = errors.New("chunks of a series overlap")

// Around is a block whose segments are those of its sources, one source after
// the other; only its index is new.
type Around struct {
	TargetReport
	Segments []block.Copied
	Reads    input.Reads
}

// Indexes merges the indexes of sources that follow one another in time, of one
// replica, with nothing to cut, into one in dir. Their chunks aren't read: a
// series then lies in as many places as it did before. The error wraps
// ErrOverlap where that can't be done and Run has to. Of cfg it is Output and
// Progress that count.
func Indexes(ctx context.Context, cfg Config, sources []Source, dir string) (_ Around, err error) {
	m := &merging{cfg: cfg, sources: byTime(sources)}
	symbols := make([]output.SymbolSource, len(sources))
	for i, s := range m.sources {
		symbols[i] = s.Block.Symbols(ctx)
	}
	if err := m.unite(symbols); err != nil {
		return Around{}, err
	}
	out := Around{}
	bases, sizes, err := out.list(m.sources)
	if err != nil {
		return Around{}, err
	}
	w, err := output.CreateAround(dir, m.syms, sizes, cfg.Output)
	if err != nil {
		return Around{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Abort())
		}
	}()
	if err := m.index(ctx, w, bases); err != nil {
		return Around{}, m.blame(err)
	}
	if out.Stats, err = w.Close(); err != nil {
		return Around{}, err
	}
	out.Content, out.Reads = w.Content(), m.reads()
	out.sum(m.sources)
	return out, nil
}

// byTime orders sources by the beginning of their data.
func byTime(in []Source) []Source {
	return slices.SortedFunc(slices.Values(in), func(a, b Source) int {
		return cmp.Or(cmp.Compare(a.Block.Meta().MinTime, b.Block.Meta().MinTime), a.Block.Meta().ULID.Compare(b.Block.Meta().ULID))
	})
}

// list names the segments anew, and tells for each source how many come before;
// the last of bases is how many there are.
func (a *Around) list(sources []Source) (bases []uint64, sizes []int64, err error) {
	for _, s := range sources {
		m := s.Block.Meta()
		bases = append(bases, uint64(len(sizes)))
		for n := 1; ; n++ {
			rel := path.Join(block.ChunksDirname, fmt.Sprintf("%06d", n))
			at := slices.IndexFunc(m.Thanos.Files, func(f block.File) bool { return f.RelPath == rel })
			if at < 0 {
				break
			}
			file := m.Thanos.Files[at]
			sizes = append(sizes, file.SizeBytes)
			file.RelPath = path.Join(block.ChunksDirname, fmt.Sprintf("%06d", len(sizes)))
			a.Segments = append(a.Segments, block.Copied{File: file, From: block.Name(m.ULID, rel)})
		}
		if uint64(len(sizes)) == bases[len(bases)-1] {
			return nil, nil, fmt.Errorf("block %s: meta.json does not list its segments: %w", m.ULID, ErrOverlap)
		}
	}
	return append(bases, uint64(len(sizes))), sizes, nil
}

// index writes the series of all sources with the chunks of all.
func (m *merging) index(ctx context.Context, w *output.Writer, bases []uint64) error {
	walk, err := m.begin(ctx)
	if err != nil {
		return err
	}
	var chunks []input.Chunk
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		group, err := walk.next(ctx)
		if err != nil || len(group) == 0 {
			return err
		}
		chunks = chunks[:0]
		for _, h := range group {
			for _, c := range h.chunks {
				if len(chunks) > 0 && c.MinTime <= chunks[len(chunks)-1].MaxTime || c.MinTime > c.MaxTime {
					return fmt.Errorf("series %s: %w", stringsOf(m.syms, h.labels), ErrOverlap)
				}
				if base, end := bases[h.src], bases[h.src+1]; c.Ref>>32 >= end-base {
					return &sourceError{src: h.src, err: fmt.Errorf("%w: a chunk is in segment %d, meta.json lists %d", block.ErrCorrupt, c.Ref>>32+1, end-base)}
				}
				c.Ref += bases[h.src] << 32
				chunks = append(chunks, c)
			}
		}
		if len(chunks) == 0 {
			continue
		}
		if err := w.Series(group[0].labels, chunks, output.Samples{}); err != nil {
			return &sourceError{src: group[0].src, err: err}
		}
		if n%progressSeries == 0 && m.cfg.Progress != nil {
			m.cfg.Progress(m.reads().Bytes)
		}
	}
}

// sum adds up what an index doesn't tell.
func (a *Around) sum(sources []Source) {
	known := true
	for _, s := range sources {
		m := s.Block.Meta()
		a.Stats.NumSamples += m.Stats.NumSamples
		a.Stats.NumFloatSamples += m.Stats.NumFloatSamples
		a.Stats.NumHistogramSamples += m.Stats.NumHistogramSamples
		longest := m.Thanos.IndexStats.ChunkMaxSize
		known = known && longest > 0
		a.Content.IndexStats.ChunkMaxSize = max(a.Content.IndexStats.ChunkMaxSize, longest)
	}
	if !known {
		a.Content.IndexStats.ChunkMaxSize = 0 // unknown
	}
}

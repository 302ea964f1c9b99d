package blockreader

import (
	"context"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/firnline/firnline/pkg/block/layout"
	"github.com/firnline/firnline/pkg/store/internal/fetch"
	"github.com/firnline/firnline/pkg/store/internal/indexcache"
)

// refUnit is what a series reference counts in an index of version 2.
const refUnit = layout.RefUnit

// entry is a series as the index has it. Strings are looked up only for series
// that are wanted.
type entry struct{ layout.Series }

// overlaps tells whether a chunk has samples in [mint, maxt].
func overlaps(c layout.Chunk, mint, maxt int64) bool { return c.MinTime <= maxt && mint <= c.MaxTime }

// within tells whether any chunk of the series overlaps [mint, maxt].
func (e *entry) within(mint, maxt int64) bool {
	return slices.ContainsFunc(e.Chunks, func(c layout.Chunk) bool { return overlaps(c, mint, maxt) })
}

// loadEntries reads the series of refs, which are sorted, by one batch of reads
// that holds about window bytes.
func (b *Block) loadEntries(ctx context.Context, refs []storage.SeriesRef, window int64, w *Work) ([]entry, error) {
	section, err := b.header.SeriesSection(ctx)
	if err != nil {
		return nil, err
	}
	contents := make([][]byte, len(refs))
	var miss missing
	for i, ref := range refs {
		w.Stats.SeriesTouched++
		if v, ok := b.parts.Cache.Get(b.seriesKey(ref)); ok {
			if content, _, err := fetch.Series.Content(v); err == nil && content != nil {
				contents[i] = content
				w.Stats.SeriesTouchedBytes += int64(len(content))
				continue
			}
			b.parts.Cache.Drop(b.seriesKey(ref))
		}
		at := int64(ref) * refUnit
		if at < section.Start || at >= section.End {
			return nil, corrupt(b.files.Index.Name, at, "series outside its section")
		}
		miss.at = append(miss.at, i)
		miss.refs = append(miss.refs, ref)
		miss.spans = append(miss.spans, fetch.Span{Start: at, End: min(at+b.files.MaxSeriesLen, section.End)})
	}
	if len(miss.at) > 0 {
		held, err := b.fetchEntries(ctx, miss, contents, w.Limits.terms(window), w)
		defer w.Limits.Held.Give(held) // what is decoded doesn't share its memory
		if err != nil {
			return nil, fmt.Errorf("series: %w", err)
		}
	}
	entries := make([]entry, len(refs))
	for i, c := range contents {
		if entries[i], err = decodeEntry(c); err != nil {
			return nil, corrupt(b.files.Index.Name, int64(refs[i])*refUnit, "series entry: %v", err)
		}
	}
	return entries, nil
}

func (b *Block) seriesKey(ref storage.SeriesRef) indexcache.Key {
	return indexcache.Key{Kind: indexcache.Series, Block: b.id, Ref: uint64(ref)}
}

// missing are series that the cache doesn't have.
type missing struct {
	at    []int // places in the batch
	refs  []storage.SeriesRef
	spans []fetch.Span // guesses
}

// fetchEntries fills in the contents of the missing series. It returns how many
// bytes it holds for them, with an error too.
func (b *Block) fetchEntries(ctx context.Context, miss missing, contents [][]byte, t fetch.Terms, w *Work) (held int64, err error) {
	records, cost, err := b.parts.Fetcher.Records(ctx, t, fetch.Series, b.files.Index, miss.spans)
	w.Stats.SeriesFetched += int64(len(miss.at))
	w.Stats.SeriesFetches += cost.Reads
	w.Stats.SeriesFetchedBytes += cost.Bytes
	w.spent(cost)
	if err != nil {
		return cost.Bytes, err
	}
	for i, at := range miss.at {
		contents[at] = fetch.Series.Strip(records[i])
		w.Stats.SeriesTouchedBytes += int64(len(contents[at]))
		b.parts.Cache.Put(b.seriesKey(miss.refs[i]), records[i])
	}
	return cost.Bytes, nil
}

// decodeEntry reads a series entry without its length and checksum. Invariant of
// the result: label names ascend, chunks have minimum ≤ maximum and ascend.
func decodeEntry(content []byte) (entry, error) {
	var e entry
	if err := e.Decode(content); err != nil {
		return entry{}, err
	}
	for i, c := range e.Chunks {
		if i > 0 && c.MinTime < e.Chunks[i-1].MinTime {
			return entry{}, fmt.Errorf("chunk %d out of order", i)
		}
	}
	return e, nil
}

// symbolTable looks symbols up for one stream and remembers them, up to a bound.
type symbolTable struct {
	block   *Block
	strings map[uint32]string
	builder labels.ScratchBuilder
}

// mostSymbols bounds what a symbolTable remembers between batches.
const mostSymbols = 1 << 17

func newSymbolTable(b *Block) *symbolTable {
	return &symbolTable{block: b, strings: map[uint32]string{}, builder: labels.NewScratchBuilder(16)}
}

// load makes sure that the symbols in ids, in any order, are known.
func (s *symbolTable) load(ctx context.Context, ids []uint32) error {
	if len(s.strings) > mostSymbols {
		clear(s.strings)
	}
	slices.Sort(ids)
	unknown := slices.DeleteFunc(slices.Compact(ids), func(id uint32) bool {
		_, ok := s.strings[id]
		return ok
	})
	return s.block.header.Symbols(ctx, unknown, func(id uint32, symbol string) { s.strings[id] = symbol })
}

// labels are those of an entry whose symbols are loaded.
func (s *symbolTable) labels(e *entry) labels.Labels {
	s.builder.Reset()
	for _, l := range e.Labels {
		s.builder.Add(s.strings[l.Name], s.strings[l.Value])
	}
	return s.builder.Labels()
}

package compact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/input"
)

const (
	dryRunBlocks = 4       // indexes read at once
	dryRunWindow = 1 << 20 // bytes of one read; each block holds a few
)

// DeleteHits is what a delete request would hit.
type DeleteHits struct {
	Blocks []BlockHits `json:"blocks"`
	// Series counts one that is in several blocks once for each of them.
	Series  int64 `json:"series"`
	Chunks  int64 `json:"chunks"`
	Samples int64 `json:"estimated_samples"`
	Failed  int   `json:"failed_blocks"` // blocks that could not be read
}

// BlockHits is what it would hit in one block.
type BlockHits struct {
	Block      ulid.ULID     `json:"block"`
	Labels     labels.Labels `json:"labels"` // external
	MinTime    int64         `json:"min_time"`
	MaxTime    int64         `json:"max_time"`
	Resolution int64         `json:"resolution"`
	Series     int64         `json:"series"`
	Chunks     int64         `json:"chunks"`
	Samples    int64         `json:"estimated_samples"` // by the mean of the block's chunks
	Error      string        `json:"error,omitempty"`
}

// DryRunDelete looks through the indexes of all blocks in a request's interval
// whose external labels may match, several at once, and counts what would be
// hit. Chunks are not read. A block that can't be read is in the result with its
// error; the error returned is ctx's or the request's.
func DryRunDelete(ctx context.Context, bkt block.Bucket, metas []*block.Meta, r *block.DeleteRequest) (DeleteHits, error) {
	selectors, err := r.Matchers()
	if err != nil {
		return DeleteHits{}, fmt.Errorf("%w: %w", block.ErrInvalidDelete, err)
	}
	var hits DeleteHits
	var mu sync.Mutex
	var g errgroup.Group // one bad block must not stop the others
	g.SetLimit(dryRunBlocks)
	for _, m := range metas {
		asked := selectorsFor(m, r, selectors)
		if len(asked) == 0 {
			continue
		}
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			h := hitsOf(ctx, bkt, m, r, asked)
			mu.Lock()
			defer mu.Unlock()
			hits.add(h)
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return DeleteHits{}, fmt.Errorf("dry run: %w", err)
	}
	slices.SortFunc(hits.Blocks, func(a, b BlockHits) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.Resolution, b.Resolution), a.Block.Compare(b.Block))
	})
	return hits, nil
}

// selectorsFor returns what is left to be asked of a block's series: selectors
// that its external labels don't rule out, without the matchers they decide.
func selectorsFor(m *block.Meta, r *block.DeleteRequest, selectors [][]*labels.Matcher) (asked [][]*labels.Matcher) {
	if !m.Overlaps(r.MinTime, r.MaxTime) {
		return nil
	}
	for _, ms := range selectors {
		if rest, ok := block.MatchExternal(m.Labels(), ms); ok {
			asked = append(asked, rest)
		}
	}
	return asked
}

// add takes in what was found in a block; one without a hit is not listed.
func (h *DeleteHits) add(b BlockHits) {
	if b.Error != "" {
		h.Failed++
	} else if b.Series == 0 {
		return
	}
	h.Blocks = append(h.Blocks, b)
	h.Series, h.Chunks, h.Samples = h.Series+b.Series, h.Chunks+b.Chunks, h.Samples+b.Samples
}

// hitsOf counts in one block.
func hitsOf(ctx context.Context, bkt block.Bucket, m *block.Meta, r *block.DeleteRequest, asked [][]*labels.Matcher) BlockHits {
	h := BlockHits{Block: m.ULID, Labels: m.Labels(), MinTime: m.MinTime, MaxTime: m.MaxTime, Resolution: m.Resolution()}
	if err := h.count(ctx, bkt, m, r, asked); err != nil {
		h.Series, h.Chunks, h.Samples, h.Error = 0, 0, 0, err.Error()
	}
	return h
}

func (h *BlockHits) count(ctx context.Context, bkt block.Bucket, m *block.Meta, r *block.DeleteRequest, asked [][]*labels.Matcher) (err error) {
	in, err := input.Open(ctx, bkt, m, input.Config{WindowBytes: dryRunWindow})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	matching, err := newNumberMatcher(in.Symbols(ctx), asked)
	if err != nil {
		return err
	}
	perChunk := float64(m.Stats.NumSamples) / float64(max(m.Stats.NumChunks, 1))
	samples := 0.0
	for {
		s, err := in.Next(ctx)
		if errors.Is(err, io.EOF) {
			h.Samples = int64(math.Round(samples))
			return nil
		}
		if err != nil {
			return err
		}
		if !matching.series(s) {
			continue
		}
		n := int64(0)
		for _, c := range s.Chunks {
			if share := shareOf(c, r, m.Resolution()); share > 0 {
				n++
				samples += share * perChunk
			}
		}
		if h.Chunks += n; n > 0 {
			h.Series++
		}
	}
}

// shareOf tells how much of a chunk's time a request asks for, 0 to 1. A window
// of a downsampled chunk goes whole.
func shareOf(c input.Chunk, r *block.DeleteRequest, resolution int64) float64 {
	from := max(c.MinTime, max(r.MinTime, math.MinInt64+resolution)-resolution)
	to := min(c.MaxTime, min(r.MaxTime, math.MaxInt64-resolution)+resolution)
	if from > to {
		return 0
	}
	return float64(to-from+1) / float64(c.MaxTime-c.MinTime+1)
}

// numberMatcher matches series by the numbers of their symbols, so that no
// string of a series is looked up: each matcher has met each symbol once, and a
// bit for each tells how that went.
type numberMatcher struct{ selectors [][]numbers }

// numbers is one matcher.
type numbers struct {
	matcher *labels.Matcher
	name    int64    // number of its label name; -1: the block has none
	values  []uint64 // bit n: symbol n matches as a value
}

func newNumberMatcher(symbols *input.SymbolStream, selectors [][]*labels.Matcher) (*numberMatcher, error) {
	m := &numberMatcher{}
	for _, ms := range selectors {
		set := make([]numbers, len(ms))
		for i := range ms {
			set[i] = numbers{matcher: ms[i], name: -1}
		}
		m.selectors = append(m.selectors, set)
	}
	for n := int64(0); symbols.Next(); n++ {
		symbol := string(symbols.At())
		for _, set := range m.selectors {
			for i := range set {
				set[i].meet(n, symbol)
			}
		}
	}
	return m, symbols.Err()
}

// meet takes note of the n-th symbol.
func (x *numbers) meet(n int64, symbol string) {
	if n%64 == 0 {
		x.values = append(x.values, 0)
	}
	if x.matcher.Matches(symbol) {
		x.values[n/64] |= 1 << (n % 64)
	}
	if symbol == x.matcher.Name {
		x.name = n
	}
}

// series tells whether a series matches all of one selector.
func (m *numberMatcher) series(s *input.Series) bool {
	return slices.ContainsFunc(m.selectors, func(set []numbers) bool {
		return !slices.ContainsFunc(set, func(x numbers) bool { return !x.matches(s.Labels) })
	})
}

func (x *numbers) matches(lset []input.Label) bool {
	for _, l := range lset {
		if int64(l.Name) == x.name {
			n := int(l.Value)
			return n/64 < len(x.values) && x.values[n/64]&(1<<(n%64)) != 0
		}
	}
	return x.matcher.Matches("")
}

// Write prints the hits as a table, the latest data last.
func (h DeleteHits) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BLOCK\tFROM\tTO\tRES\tSERIES\tCHUNKS\tSAMPLES ~\tLABELS")
	for _, b := range h.Blocks {
		hits := fmt.Sprintf("%d\t%d\t%d", b.Series, b.Chunks, b.Samples)
		if b.Error != "" {
			hits = "?\t?\t?"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", b.Block, minute(b.MinTime), minute(b.MaxTime), resolutionName(b.Resolution), hits, b.Labels)
	}
	fmt.Fprintf(t, "%d blocks\t\t\t\t%d\t%d\t%d\t\n", len(h.Blocks), h.Series, h.Chunks, h.Samples)
	if err := t.Flush(); err != nil {
		return err
	}
	for _, b := range h.Blocks {
		if b.Error != "" {
			fmt.Fprintf(w, "could not be read: %s\n", b.Error)
		}
	}
	return nil
}

// minute writes ms for a table.
func minute(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04") }

// LiveBlocks returns the blocks of a bucket that answers come from: not those
// marked for deletion, nor those that others cover.
func LiveBlocks(ctx context.Context, bkt block.Bucket, log *slog.Logger) ([]*block.Meta, error) {
	f, err := block.NewFetcher(block.FetcherConfig{Concurrency: 32, Strategy: block.StrategyRecursive}, bkt, "", log, prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	v, err := f.Fetch(ctx)
	if err != nil {
		return nil, fmt.Errorf("find blocks: %w", err)
	}
	out := make([]*block.Meta, 0, len(v.Metas))
	for _, m := range v.Metas {
		out = append(out, m)
	}
	return out, nil
}

package compact

import (
	"context"
	"fmt"
	"sort"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/input"
	"github.com/firnline/firnline/pkg/compact/internal/output"
)

// findCuts finds the Count−1 label sets at which a shard's range is cut into
// parts of about equally many series of m. Whoever asks the same of the same
// block gets the same answer.
func findCuts(ctx context.Context, bkt block.Bucket, m *block.Meta, whole *block.Shard, cfg input.Config) (_ []labels.Labels, err error) {
	in, err := input.Open(ctx, bkt, m, cfg)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	names, err := readNames(ctx, in)
	if err != nil {
		return nil, err
	}
	all, err := in.Positions(ctx)
	if err != nil {
		return nil, err
	}
	at := func(i int64) (labels.Labels, error) {
		s, err := all.At(ctx, i)
		if err != nil {
			return labels.EmptyLabels(), err
		}
		return names.labels(s), nil
	}
	first, last, err := rangeOf(all.Count(), whole, at)
	if err != nil {
		return nil, err
	}
	if last-first < int64(whole.Count) {
		return nil, fmt.Errorf("block %s has %d series to be split into %d shards", m.ULID, last-first, whole.Count)
	}
	var cuts []labels.Labels
	for i := 1; i < whole.Count; i++ {
		lset, err := at(first + (last-first)*int64(i)/int64(whole.Count))
		if err != nil {
			return nil, err
		}
		cuts = append(cuts, lset)
	}
	return cuts, nil
}

// rangeOf finds by binary search which of n series a shard's bounds enclose.
func rangeOf(n int64, s *block.Shard, at func(int64) (labels.Labels, error)) (first, last int64, err error) {
	reach := func(bound labels.Labels) int64 {
		return int64(sort.Search(int(n), func(i int) bool {
			lset, atErr := at(int64(i))
			if atErr != nil {
				err = atErr
				return true
			}
			return labels.Compare(lset, bound) >= 0
		}))
	}
	last = n
	if !s.From.IsEmpty() {
		first = reach(s.From)
	}
	if !s.To.IsEmpty() && err == nil {
		last = reach(s.To)
	}
	return first, last, err
}

// names are the symbols of one block, in memory.
type names struct {
	syms    *output.Symbols
	numbers []uint32 // by the block's numbers
}

func readNames(ctx context.Context, in *input.Block) (names, error) {
	syms, numbers, err := output.MergeSymbols(in.Symbols(ctx))
	if err != nil {
		return names{}, &input.Error{Block: in.Meta().ULID, Err: err}
	}
	return names{syms, numbers[0]}, nil
}

// labels returns those of a series. A number that the block has no symbol for is
// its reader's to refuse.
func (n names) labels(s *input.Series) labels.Labels {
	b := labels.NewScratchBuilder(len(s.Labels))
	for _, l := range s.Labels {
		b.Add(n.syms.At(n.numbers[l.Name]), n.syms.At(n.numbers[l.Value]))
	}
	b.Sort()
	return b.Labels()
}

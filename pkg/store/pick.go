package store

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/storeapi"
)

// blockIDLabel is how block matchers name a block's ULID.
const blockIDLabel = "__block_id"

// pick is a block to be read and the matchers left to apply to its series.
type pick struct {
	block    *loaded
	matchers []*labels.Matcher
	hidden   storeapi.Hidden // what coarser blocks answer for; nil: nothing
}

// pick chooses the blocks for a selection. With allResolutions every block in
// time is taken, since any may have names and values that others lack.
func (v *view) pick(sel storeapi.Selection, allResolutions bool) (picks []pick) {
	for _, g := range v.groups {
		rest, ok := block.MatchExternal(g.labels, sel.Matchers)
		if !ok {
			continue
		}
		var blocks []*loaded
		var candidates []candidate
		for _, l := range g.blocks {
			if l.meta.Overlaps(sel.Mint, sel.Maxt) && matchesBlock(l, sel.BlockMatchers) {
				blocks, candidates = append(blocks, l), append(candidates, l.candidate())
			}
		}
		if allResolutions {
			for _, l := range blocks {
				picks = append(picks, pick{block: l, matchers: rest})
			}
			continue
		}
		for _, c := range chooseBlocks(candidates, sel.Mint, sel.Maxt, sel.MaxResolution) {
			picks = append(picks, pick{block: blocks[c.at], matchers: rest, hidden: c.hidden()})
		}
	}
	return picks
}

func matchesBlock(l *loaded, ms []*labels.Matcher) bool {
	for _, m := range ms {
		value := l.labels.Get(m.Name)
		if m.Name == blockIDLabel {
			value = l.meta.ULID.String()
		}
		if !m.Matches(value) {
			return false
		}
	}
	return true
}

// acquire picks blocks and keeps them open. The caller releases them.
func (s *Store) acquire(sel storeapi.Selection, allResolutions bool) ([]pick, error) {
	for {
		v := s.view.Load()
		if v == nil {
			return nil, fmt.Errorf("%w: %w", storeapi.ErrUnavailable, s.Ready())
		}
		picks := v.pick(sel, allResolutions)
		n := 0
		for n < len(picks) && picks[n].block.acquire() {
			n++
		}
		if n == len(picks) {
			return picks, nil
		}
		// A block was dropped since the view was loaded, so there is a newer view.
		s.release(picks[:n])
	}
}

func (s *Store) release(picks []pick) {
	for _, p := range picks {
		p.block.release(s.log)
	}
}

// clamp restricts a selection to --min-time and --max-time. It is false when nothing is left.
func (s *Store) clamp(sel *storeapi.Selection) bool {
	now := s.now()
	sel.Mint = max(sel.Mint, s.cfg.Blocks.MinTime.Millis(now, sel.Mint))
	sel.Maxt = min(sel.Maxt, s.cfg.Blocks.MaxTime.Millis(now, sel.Maxt))
	return sel.Mint <= sel.Maxt
}

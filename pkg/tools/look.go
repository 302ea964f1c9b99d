package tools

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/firnline/firnline/pkg/block"
)

// Look says which blocks of a bucket a tool is to work on; RegisterFlags fills
// in the defaults.
type Look struct {
	blocks    block.FetcherConfig
	selectors []string // of external labels
}

// RegisterFlags registers the flags, with Thanos' names where Thanos has them.
func (l *Look) RegisterFlags(fs *flag.FlagSet) {
	l.blocks.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError)) // the defaults
	l.blocks.KeepMarked, l.blocks.KeepDuplicates = true, true
	fs.IntVar(&l.blocks.Concurrency, "block-meta-fetch-concurrency", l.blocks.Concurrency, "How many requests for the metadata of blocks are sent to the bucket at once.")
	fs.Var(&l.blocks.MinTime, "min-time", "Leave out blocks whose data ends before this: a time (2026-01-31T00:00:00Z) or a duration back from now (-6w). Default: no bound.")
	fs.Var(&l.blocks.MaxTime, "max-time", "Leave out blocks whose data begins after this: a time or a duration back from now. Default: no bound.")
	fs.StringVar(&l.blocks.Selector, "selector.relabel-config", "", "Relabel rules in YAML that choose blocks by their external labels and __block_id. Actions: keep, drop, hashmod.")
	fs.StringVar(&l.blocks.SelectorFile, "selector.relabel-config-file", "", "File with the relabel rules of --selector.relabel-config.")
	fs.Func("selector", `Only blocks whose external labels match this, such as cluster="eu" or {cluster=~"eu|us"}. Repeatable: all must match.`, func(s string) error {
		l.selectors = append(l.selectors, s)
		return nil
	})
}

// Validate names each flag that can't be right.
func (l *Look) Validate() error {
	_, err := parseSelectors(l.selectors)
	return errors.Join(l.blocks.Validate(), err)
}

// parseSelectors reads matchers, with or without the braces around them.
func parseSelectors(selectors []string) ([]*labels.Matcher, error) {
	p := parser.NewParser(parser.Options{})
	var out []*labels.Matcher
	for _, s := range selectors {
		text := strings.TrimSpace(s)
		if !strings.HasPrefix(text, "{") {
			text = "{" + text + "}"
		}
		ms, err := p.ParseMetricSelector(text)
		if err != nil {
			return nil, fmt.Errorf("--selector: %q: %w", s, err)
		}
		out = append(out, ms...)
	}
	return out, nil
}

// In returns the blocks of a bucket that were asked for: those marked and those
// that others cover, too. It reads the bucket's manifest or, where that can't be
// used, lists the bucket. The view is the best that is known, with an error, too.
func (l *Look) In(ctx context.Context, bkt block.Bucket, log *slog.Logger) (block.View, error) {
	f, err := block.NewFetcher(l.blocks, bkt, "", log, prometheus.NewRegistry())
	if err != nil {
		return block.View{}, err
	}
	v, err := f.Fetch(ctx)
	if err != nil {
		return v, fmt.Errorf("find blocks: %w", err)
	}
	ms, err := parseSelectors(l.selectors)
	if err != nil {
		return v, err
	}
	for id, m := range v.Metas {
		if !matchesAll(m.Labels(), ms) {
			delete(v.Metas, id)
		}
	}
	if len(v.Metas)+len(v.Problems)+len(v.Partial) == 0 && len(v.LeftOut) == 0 {
		return v, foreign(ctx, bkt)
	}
	return v, nil
}

// matchesAll tells whether labels match all of the matchers. A label that isn't
// there is empty.
func matchesAll(lset labels.Labels, ms []*labels.Matcher) bool {
	for _, m := range ms {
		if !m.Matches(lset.Get(m.Name)) {
			return false
		}
	}
	return true
}

// ErrForeign marks a bucket that holds other things than blocks.
var ErrForeign = errors.New("the bucket holds no blocks")

// ours are the names at the top of a bucket that no other program leaves there.
const ours = "firnline/"

// foreign tells whether a bucket without blocks is somebody else's: most likely
// the prefix or the bucket's name is wrong.
func foreign(ctx context.Context, bkt block.Bucket) error {
	enough := errors.New("one is enough")
	found := ""
	err := bkt.Iter(ctx, "", func(name string) error {
		if name == ours {
			return nil
		}
		if _, ok := block.ParseID(name); ok {
			return nil
		}
		found = name
		return enough
	})
	if err != nil && !errors.Is(err, enough) {
		return fmt.Errorf("list the bucket: %w", err)
	}
	if found != "" {
		return fmt.Errorf("%w, but other things, such as %q: look at the bucket's name and at prefix in the objstore YAML", ErrForeign, found)
	}
	return nil
}

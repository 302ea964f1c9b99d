package tools

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"go.yaml.in/yaml/v3"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/content"
	"github.com/firnline/firnline/pkg/tools/internal/localblock"
)

// Deletion takes samples out of the series that a selector matches, as Thanos'
// --rewrite.to-delete-config has it.
type Deletion struct {
	Matchers  string     `yaml:"matchers" json:"matchers"` // a vector selector
	Intervals []Interval `yaml:"intervals,omitempty" json:"intervals,omitempty"`
}

// Interval is a time in ms, both ends inclusive. None at all: for ever.
type Interval struct {
	MinTime int64 `yaml:"mint" json:"mint"`
	MaxTime int64 `yaml:"maxt" json:"maxt"`
}

// Rewriting writes blocks anew without some samples, or with other labels.
//
// A block's replacement has the same sources and a ULID just before it, so that
// every reader takes it for the one to read as soon as both are there; then the
// block is marked for deletion. Done twice, the same block comes out.
type Rewriting struct {
	Deletions []Deletion
	Relabels  []*relabel.Config

	matchers [][]*labels.Matcher // of Deletions
}

// ParseRewriting reads both configurations, of which one may be empty.
func ParseRewriting(deletions, relabels []byte) (*Rewriting, error) {
	r := &Rewriting{}
	if err := strictYAML(deletions, &r.Deletions); err != nil {
		return nil, fmt.Errorf("--rewrite.to-delete-config: %w", err)
	}
	if err := strictYAML(relabels, &r.Relabels); err != nil {
		return nil, fmt.Errorf("--rewrite.to-relabel-config: %w", err)
	}
	if len(r.Deletions)+len(r.Relabels) == 0 {
		return nil, errors.New("--rewrite.to-delete-config, --rewrite.to-relabel-config: give one of them, or both")
	}
	for i, d := range r.Deletions {
		ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(d.Matchers)
		if err != nil {
			return nil, fmt.Errorf("--rewrite.to-delete-config: matchers %q: %w", d.Matchers, err)
		}
		for _, iv := range d.Intervals {
			if iv.MinTime > iv.MaxTime {
				return nil, fmt.Errorf("--rewrite.to-delete-config: entry %d: an interval ends before it begins", i+1)
			}
		}
		r.matchers = append(r.matchers, ms)
	}
	for i, c := range r.Relabels {
		if c == nil {
			return nil, fmt.Errorf("--rewrite.to-relabel-config: rule %d is empty", i+1)
		}
		if err := c.Validate(model.UTF8Validation); err != nil {
			return nil, fmt.Errorf("--rewrite.to-relabel-config: rule %d: %w", i+1, err)
		}
	}
	return r, nil
}

// strictYAML reads YAML in which every key is known. Nothing is no error.
func strictYAML(data []byte, into any) error {
	if err := content.DecodeYAML(data, into); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// Rewritten tells what became of a block, or would.
type Rewritten struct {
	Block          ulid.ULID `json:"block"`
	New            ulid.ULID `json:"new"`
	Unchanged      bool      `json:"unchanged"`
	Series         uint64    `json:"series"`
	SeriesDropped  uint64    `json:"series_dropped"`
	SeriesChanged  uint64    `json:"series_changed"` // other labels
	Samples        uint64    `json:"samples"`        // before
	SamplesDropped uint64    `json:"samples_dropped"`
}

// RewriteParts are what rewriting works with.
type RewriteParts struct {
	Bucket    block.Bucket
	Log       *slog.Logger
	Dir       string // where blocks are put while they are worked on
	DryRun    bool   // write nothing to the bucket
	KeepOld   bool   // don't mark the block that was rewritten
	ChangeLog bool   // write change.log beside the new block
	HashFunc  string
}

// Block rewrites one block of a bucket.
func (r *Rewriting) Block(ctx context.Context, p RewriteParts, id ulid.ULID) (_ Rewritten, err error) {
	if err := Exists(ctx, p.Bucket, id); err != nil {
		return Rewritten{}, err
	}
	m, err := block.FetchMeta(ctx, p.Bucket, id)
	if err != nil {
		return Rewritten{}, err
	}
	dir, err := os.MkdirTemp(p.Dir, "rewrite-")
	if err != nil {
		return Rewritten{}, err
	}
	defer os.RemoveAll(dir)
	local, err := Download(ctx, p.Bucket, m, dir)
	if err != nil {
		return Rewritten{}, err
	}
	out, next, err := r.write(ctx, local, dir)
	if err != nil || out.Unchanged || p.DryRun {
		return out, err
	}
	if next.Stats.NumSeries == 0 {
		return out, p.replaced(ctx, id, "rewritten to nothing by firnline tools bucket rewrite")
	}
	up := block.Uploader{Bucket: p.Bucket, HashFunc: p.HashFunc}
	sent, err := up.Upload(ctx, filepath.Join(dir, next.ULID.String()), next)
	if err != nil {
		return out, err
	}
	if err := block.VerifyRemote(ctx, p.Bucket, sent.Meta); err != nil {
		return out, err
	}
	announce(ctx, p.Bucket, p.Log, block.Change{Block: next.ULID, Meta: sent.Meta})
	if p.ChangeLog {
		if err := r.changeLog(ctx, p.Bucket, out); err != nil {
			return out, err
		}
	}
	return out, p.replaced(ctx, id, fmt.Sprintf("rewritten as %s by firnline tools bucket rewrite", next.ULID))
}

// announce tells readers what has happened; what fails is found by a listing.
func announce(ctx context.Context, bkt block.Bucket, log *slog.Logger, c block.Change) {
	if err := block.Announce(ctx, bkt, c); err != nil {
		log.Warn("a change is not announced; others find it at their next listing", "block", c.Block, "err", err)
	}
}

// replaced marks the old block, unless that is not wanted.
func (p *RewriteParts) replaced(ctx context.Context, id ulid.ULID, why string) error {
	if p.KeepOld {
		return nil
	}
	m := Marking{Blocks: []ulid.ULID{id}, Mark: block.DeletionMarkFilename, Details: why}
	return m.Do(ctx, p.Bucket, p.Log)
}

// newID is the ULID of a block's replacement: just before it, and always the same
// for the same rewriting.
func (r *Rewriting) newID(old ulid.ULID) (ulid.ULID, error) {
	config, err := yaml.Marshal([]any{r.Deletions, r.Relabels})
	if err != nil {
		return ulid.ULID{}, err
	}
	sum := sha256.Sum256(append(old[:], config...))
	id := ulid.ULID(sum[:16])
	return id, id.SetTime(max(old.Time(), 1) - 1)
}

// nextMeta is the meta of a block's replacement, but for what the writing finds out.
func (r *Rewriting) nextMeta(old *block.Meta) (*block.Meta, error) {
	id, err := r.newID(old.ULID)
	if err != nil {
		return nil, err
	}
	m := *old
	m.ULID = id
	m.Stats = block.Stats{}
	m.Compaction.Parents = []block.Desc{{ULID: old.ULID, MinTime: old.MinTime, MaxTime: old.MaxTime}}
	m.Compaction.Sources = old.Sources()
	m.Thanos.Source = block.SourceBucketRewrite
	m.Thanos.Files, m.Thanos.SegmentFiles = nil, nil
	ext, _, err := old.Extension()
	if err != nil {
		return nil, err
	}
	if ext.Shard != nil && len(r.Relabels) > 0 {
		return nil, fmt.Errorf("block %s is a shard, whose series are chosen by their labels: merge the shards of its group first (firnline tools bucket merge-shards)", old.ULID)
	}
	ext.Thinned, ext.Runs = true, 0 // written anew, in one run
	if err := m.SetExtension(ext); err != nil {
		return nil, err
	}
	note := block.Rewrite{Sources: []ulid.ULID{old.ULID}}
	for _, d := range r.Deletions {
		data, err := json.Marshal(d)
		if err != nil {
			return nil, err
		}
		note.DeletionsApplied = append(note.DeletionsApplied, data)
	}
	for _, c := range r.Relabels {
		data, err := json.Marshal(c)
		if err != nil {
			return nil, err
		}
		note.RelabelsApplied = append(note.RelabelsApplied, data)
	}
	m.Thanos.Rewrites = append(slices.Clone(old.Thanos.Rewrites), note)
	return &m, nil
}

// changeLog writes what was done, for people, beside the block.
func (r *Rewriting) changeLog(ctx context.Context, bkt block.Bucket, out Rewritten) error {
	text := fmt.Sprintf("%s: %s was rewritten as this block: %d of %d series dropped, %d with other labels, %d of %d samples dropped\n",
		time.Now().UTC().Format(time.RFC3339), out.Block, out.SeriesDropped, out.Series, out.SeriesChanged, out.SamplesDropped, out.Samples)
	name := block.Name(out.New, "change.log")
	if err := bkt.Upload(ctx, name, strings.NewReader(text)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// cuts are the times that deletions take out of a series, external labels included.
func (r *Rewriting) cuts(lset labels.Labels) tombstones.Intervals {
	var out tombstones.Intervals
	for i, d := range r.Deletions {
		if !matchesAll(lset, r.matchers[i]) {
			continue
		}
		if len(d.Intervals) == 0 {
			return tombstones.Intervals{{Mint: math.MinInt64, Maxt: math.MaxInt64}}
		}
		for _, iv := range d.Intervals {
			out = out.Add(tombstones.Interval{Mint: iv.MinTime, Maxt: iv.MaxTime})
		}
	}
	return out
}

// write writes the replacement of the block in local below dir.
func (r *Rewriting) write(ctx context.Context, local, dir string) (out Rewritten, next *block.Meta, err error) {
	b, err := localblock.Open(local)
	if err != nil {
		return out, nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if next, err = r.nextMeta(b.Meta); err != nil {
		return out, nil, err
	}
	out.Block, out.New = b.Meta.ULID, next.ULID
	w := &rewriter{Rewriting: r, from: b, meta: next, told: &out}
	if err := w.plan(ctx); err != nil {
		return out, nil, err
	}
	return out, next, w.run(ctx, filepath.Join(dir, next.ULID.String()))
}

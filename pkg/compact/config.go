package compact

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/grafana/dskit/flagext"
	"github.com/prometheus/common/model"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/policy"
	"github.com/firnline/firnline/pkg/dedup"
)

// Config is what an operator may set; RegisterFlags fills in the defaults.
type Config struct {
	Blocks block.FetcherConfig // which blocks are ours

	DataDir          string         // local folder: copies of metas, and one subfolder that is emptied at the start
	Wait             bool           // go on for ever; else one pass
	WaitInterval     model.Duration // between looks into the bucket
	CleanupInterval  model.Duration // between rounds of removing what was marked
	ProgressInterval model.Duration // between log lines about the backlog; 0: none

	Concurrency      int // jobs at once
	FilesConcurrency int // segments of a block uploaded at once
	HashFunc         string
	JobMemory        flagext.Bytes // of one job, without the symbols of its output
	DiskLimit        flagext.Bytes // of all jobs' results; 0: what the file system has

	DeleteDelay         model.Duration // mark to removal; above every reader's delay
	Retention           Retention
	DisableDownsampling bool

	DedupFunc     string // a dedup.Kind; "": firnline
	ReplicaLabels flagext.StringSlice

	MaxIndexBytes       flagext.Bytes // of one block; larger groups are split
	CopyMinSize         flagext.Bytes // of a block's chunks, to be copied into one of 14 days as they are; 0: nothing is copied
	KeepStartTimestamps bool
	LeaseTTL            model.Duration
	ForeignWindow       model.Duration

	AdminAPI bool
}

// Retention is how long data is kept, by resolution; 0 is for ever.
type Retention struct {
	Raw, FiveMinutes, OneHour model.Duration

	PolicyFile     string         // refines it per tenant and selector; "": nothing
	PolicyInterval model.Duration // between looks at the file
}

// RegisterFlags sets the defaults and registers the flags, with Thanos' names
// where Thanos has them.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	c.registerBlocks(fs)
	c.WaitInterval, c.CleanupInterval, c.ProgressInterval = model.Duration(5*time.Minute), model.Duration(5*time.Minute), model.Duration(5*time.Minute)
	c.DeleteDelay = model.Duration(48 * time.Hour)
	fs.StringVar(&c.DataDir, "data-dir", "./data", "Local folder for copies of meta.json and for the results of jobs until they are uploaded. Its folder compact/ is emptied at the start. One process at a time can use it.")
	fs.BoolVar(&c.Wait, "wait", false, "Go on for ever. Without it one pass is made, and the exit code is 1 if something was left undone.")
	fs.Var(&c.WaitInterval, "wait-interval", "Time between two looks into the bucket for new blocks, with --wait.")
	fs.Var(&c.CleanupInterval, "compact.cleanup-interval", "Time between two rounds of removing blocks that were marked long ago and partial uploads.")
	fs.Var(&c.ProgressInterval, "compact.progress-interval", "Time between two log lines about what is left to do. 0 logs none; metrics always say it.")
	fs.Var(&c.DeleteDelay, "delete-delay", "Time from a block's deletion mark to its removal. It must be longer than the --ignore-deletion-marks-delay of every store gateway. 0 removes at once, which breaks queries that run.")
	c.registerJobs(fs)
	c.registerData(fs)
	fs.BoolVar(&c.AdminAPI, "web.enable-admin-api", false, "Let the HTTP API create and cancel requests to delete series.")
}

// registerBlocks takes the flags of the Fetcher but for one, since a compactor
// looks at marked blocks whatever their age.
func (c *Config) registerBlocks(fs *flag.FlagSet) {
	own := flag.NewFlagSet("", flag.ContinueOnError)
	c.Blocks.RegisterFlags(own)
	c.Blocks.ConsistencyDelay = model.Duration(30 * time.Minute)
	c.Blocks.KeepMarked, c.Blocks.KeepDuplicates = true, true
	own.VisitAll(func(f *flag.Flag) {
		if f.Name != "ignore-deletion-marks-delay" {
			fs.Var(f.Value, f.Name, f.Usage)
		}
	})
}

func (c *Config) registerJobs(fs *flag.FlagSet) {
	c.JobMemory, c.MaxIndexBytes = 256<<20, 64<<30
	c.LeaseTTL, c.ForeignWindow = model.Duration(5*time.Minute), model.Duration(24*time.Hour)
	fs.IntVar(&c.Concurrency, "compact.concurrency", 1, "Jobs at once, of whatever group and kind. Each takes up to --compact.memory and one core or two.")
	fs.IntVar(&c.FilesConcurrency, "block-files-concurrency", 1, "Files of a block uploaded at once.")
	fs.StringVar(&c.HashFunc, "hash-func", "", "Hash that meta.json gives for each file: SHA256, or empty for none.")
	fs.Var(&c.JobMemory, "compact.memory", "Memory that a job may take beside the symbols of its result. A job that would need more is left out, and the log says by how much.")
	fs.Var(&c.DiskLimit, "compact.disk", "Disk that all jobs' results together may take before they are uploaded. 0: as much as the file system has free. A job that may need more is left out, and the log says by how much.")
	fs.Var(&c.LeaseTTL, "compact.lease-ttl", "After this time without a sign of life another process takes a job over.")
	fs.Var(&c.ForeignWindow, "compact.foreign-window", "How long a group is left alone after blocks of another compactor were seen in it, after our first result, since only one family of compactors may work on a group. 0: it is never left alone.")
}

func (c *Config) registerData(fs *flag.FlagSet) {
	r := &c.Retention
	r.PolicyInterval = model.Duration(15 * time.Second)
	fs.Var(&r.Raw, "retention.resolution-raw", "How long raw data is kept, counted from the end of its block. 0: for ever. It goes only when the 5m data that is meant to outlive it is there.")
	fs.Var(&r.FiveMinutes, "retention.resolution-5m", "The same for data downsampled to 5 minutes.")
	fs.Var(&r.OneHour, "retention.resolution-1h", "The same for data downsampled to 1 hour.")
	fs.StringVar(&r.PolicyFile, "retention.policy-file", "", "YAML file with retention per tenant and per series selector. It is read again when it changes, at SIGHUP and at a POST of /-/reload; while it is wrong, what it said before stays in force.")
	fs.Var(&r.PolicyInterval, "retention.policy-interval", "Time between two looks whether that file has changed.")
	fs.BoolVar(&c.DisableDownsampling, "downsampling.disable", false, "Make no 5m and 1h data. Queries over long ranges get slow.")
	c.CopyMinSize = 64 << 20
	c.DedupFunc = string(dedup.Firnline)
	fs.StringVar(&c.DedupFunc, "deduplication.func", c.DedupFunc, "How replicas are merged (--deduplication.replica-label): firnline keeps one copy and fills its gaps from others, as the querier does; penalty is Thanos' algorithm; chain, which Thanos' compactor does when nothing is given, takes every timestamp of every replica once and is right only for replicas that are equal. Empty: firnline.")
	fs.Var(&c.ReplicaLabels, "deduplication.replica-label", "External label that tells replicas apart. Blocks that differ in nothing else are merged into one without it, which can't be undone. Repeatable.")
	fs.Var(&c.MaxIndexBytes, "compact.block-max-index-size", "Largest index of a block. A group whose blocks would get larger is split by label ranges into shards that stay apart; Thanos' compactor can't work on such a group any more.")
	fs.Var(&c.CopyMinSize, "compact.copy-min-size", "Blocks that become one of 14 days have their chunks copied within the bucket, where nothing about them changes, if they take this much on average. They are neither read nor written then, and a series lies in as many places as there were blocks: seven. Smaller ones are written anew. Blocks of 8 hours are made by copying from 256 KiB on. 0: nothing is copied.")
	fs.BoolVar(&c.KeepStartTimestamps, "compact.keep-start-timestamps", false, "Keep start timestamps in merged chunks, by encodings that Thanos can't read.")
}

// Bounds of sensible values.
const (
	minLeaseTTL  = 10 * time.Second // below, a slow answer of the bucket loses claims
	minJobMemory = 32 << 20
	minIndex     = 16 << 10 // a group would fall to dust
	maxIndex     = 64 << 30 // what the format can address
)

// Validate names each flag that can't be right.
func (c *Config) Validate() error {
	errs := []error{c.Blocks.Validate(), c.Retention.validate(!c.DisableDownsampling)}
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.DataDir != "", "--data-dir is empty: name a folder that can be written to")
	check(c.WaitInterval > 0, "--wait-interval=%s: give more than 0", c.WaitInterval)
	check(c.CleanupInterval > 0, "--compact.cleanup-interval=%s: give more than 0", c.CleanupInterval)
	check(c.Concurrency >= 1, "--compact.concurrency=%d: give 1 or more", c.Concurrency)
	check(c.FilesConcurrency >= 1, "--block-files-concurrency=%d: give 1 or more", c.FilesConcurrency)
	check(c.HashFunc == "" || c.HashFunc == block.HashSHA256, "--hash-func=%q: give %s or nothing", c.HashFunc, block.HashSHA256)
	check(c.JobMemory >= minJobMemory, "--compact.memory=%s: give %d MiB or more", &c.JobMemory, minJobMemory>>20)
	check(c.MaxIndexBytes >= minIndex && c.MaxIndexBytes <= maxIndex, "--compact.block-max-index-size=%s: give 16KiB to 64GiB", &c.MaxIndexBytes)
	check(time.Duration(c.LeaseTTL) >= minLeaseTTL, "--compact.lease-ttl=%s: give %s or more", c.LeaseTTL, minLeaseTTL)
	_, err := c.dedupKind()
	check(err == nil, "--deduplication.func: %w", err)
	check(!slices.Contains(c.ReplicaLabels, ""), "--deduplication.replica-label is empty: name a label")
	return errors.Join(errs...)
}

func (c *Config) dedupKind() (dedup.Kind, error) {
	if c.DedupFunc == "" {
		return dedup.Firnline, nil
	}
	return dedup.ParseKind(c.DedupFunc)
}

func (r *Retention) tiers() policy.Tiers {
	return policy.Tiers{Raw: time.Duration(r.Raw), FiveMinutes: time.Duration(r.FiveMinutes), OneHour: time.Duration(r.OneHour)}
}

package heads

import (
	"errors"
	"flag"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/dskit/flagext"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/notes"
)

// Values of --ingest.sync.
const (
	SyncNone    = "none"
	SyncBatched = "batched"
)

// Config is what an operator may set; RegisterFlags fills in the defaults.
type Config struct {
	Dir              string         // one subfolder a tenant
	Retention        model.Duration // of local blocks, and how long an idle tenant stays open
	MinBlockDuration model.Duration // that a head is cut into
	MaxBlockDuration model.Duration
	OutOfOrderWindow model.Duration // of tenants whose limits don't say another
	OutOfOrderCapMax int            // samples of an out-of-order chunk
	TooFarAhead      model.Duration // ahead of our clock, from which on samples are refused; 0: none is
	WALCompression   bool
	MaxExemplars     int // a tenant; 0: none are kept

	// Sync says what an answer promises. batched: what was acknowledged
	// survives a loss of power, since the log was synced, once for all requests
	// that came within SyncInterval. none: it survives the death of the process,
	// and after a loss of power as much is gone as the kernel had not written
	// yet, by default up to some 30 seconds.
	Sync         string
	SyncInterval model.Duration

	Labels      flagext.StringSlice // external, name="value"
	TenantLabel string              // external label that tells tenants apart

	MaxTenants        int            // open at once
	MaxSessions       int            // of routers, a tenant
	ReplayConcurrency int            // tenants whose logs are read at once; 0: see replays
	CutConcurrency    int            // tenants whose heads are cut into blocks at once
	ShipConcurrency   int            // tenants whose blocks are sent at once
	IdleFlush         model.Duration // without samples, until a head is cut into blocks whatever its age
	MinFree           flagext.Bytes  // of the file system; below, nothing is taken
	DamagedBytes      flagext.Bytes  // of what is put aside, a tenant
	MaxFamilies       int            // metric families whose metadata is kept, a tenant

	Shipper   block.ShipperConfig
	Notes     notes.Config   // of a tenant
	SyncDelay model.Duration // a block's time in the bucket before the local one goes

	RequestSeries  int // that a read may return; 0: no limit
	RequestSamples int
}

// Names of flags that errors speak of.
const (
	flagSeries  = "--store.limits.request-series"
	flagSamples = "--store.limits.request-samples"
	flagMinFree = "--tsdb.min-free"
	flagTenants = "--tsdb.max-open-tenants"
	flagTooFar  = "--tsdb.too-far-in-future.time-window"
)

// RegisterFlags sets the defaults and registers the flags, with Thanos' names
// where they mean the same.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	c.Retention = model.Duration(2 * 24 * time.Hour)
	c.MinBlockDuration, c.MaxBlockDuration = model.Duration(2*time.Hour), model.Duration(2*time.Hour)
	c.TooFarAhead = model.Duration(10 * time.Minute)
	fs.StringVar(&c.Dir, "tsdb.path", "./data", "Local folder of the tenants' TSDBs. One process at a time can use it.")
	fs.Var(&c.Retention, "tsdb.retention", "How long local blocks are kept. With a bucket none goes before it is verified there. A tenant that sent nothing for so long is closed and its folder removed, once all its blocks are in the bucket.")
	fs.Var(&c.MinBlockDuration, "tsdb.min-block-duration", "Time that a block spans.")
	fs.Var(&c.MaxBlockDuration, "tsdb.max-block-duration", "Longest time of a local block. Leave it equal to --tsdb.min-block-duration: the compactor merges blocks.")
	fs.Var(&c.OutOfOrderWindow, "tsdb.out-of-order.time-window", "How much older than the newest sample of its tenant a sample may be that comes late. 0: none. Limits of a tenant override it.")
	fs.IntVar(&c.OutOfOrderCapMax, "tsdb.out-of-order.cap-max", 32, "Samples of an out-of-order chunk, at most 255.")
	fs.Var(&c.TooFarAhead, flagTooFar[2:], "Samples further ahead of this machine's clock are refused: one of them would make the head refuse all that is right. 0: none are.")
	fs.BoolVar(&c.WALCompression, "tsdb.wal-compression", true, "Compress the records of the log.")
	fs.IntVar(&c.MaxExemplars, "tsdb.max-exemplars", 10_000, "Newest exemplars kept in memory a tenant, some 80 bytes each and their labels: what can be asked for before a block is shipped. 0: none.")
	c.registerDurability(fs)
	c.registerTenants(fs)
	c.registerShipping(fs)
	fs.IntVar(&c.RequestSeries, flagSeries[2:], 0, "Series that a request may read. 0: no limit.")
	fs.IntVar(&c.RequestSamples, flagSamples[2:], 0, "Samples that a request may read. 0: no limit.")
}

func (c *Config) registerDurability(fs *flag.FlagSet) {
	c.SyncInterval = model.Duration(4 * time.Millisecond)
	c.MinFree, c.DamagedBytes = 256<<20, 1<<30
	fs.StringVar(&c.Sync, "ingest.sync", SyncBatched, "What an answer promises. batched: samples survive a loss of power, because the log was synced, once for all requests of --ingest.sync-interval; an answer takes some milliseconds longer and throughput hardly changes. none: they survive the death of the process, not a loss of power, which takes what the kernel had not written yet, up to some 30 seconds.")
	fs.Var(&c.SyncInterval, "ingest.sync-interval", "How long the first request of a group waits for others to share its sync, with --ingest.sync=batched. 2ms to 10ms are sensible.")
	fs.Var(&c.MinFree, flagMinFree[2:], "Free space of the file system below which samples are refused with 503, before the disk is full. Reads go on.")
	fs.Var(&c.DamagedBytes, "tsdb.damaged-max-size", "Bytes of damaged logs, head chunks and blocks kept aside a tenant, in its folder damaged/. The oldest go first.")
}

func (c *Config) registerTenants(fs *flag.FlagSet) {
	c.IdleFlush = model.Duration(time.Hour)
	fs.Var(&c.Labels, "label", `External label of all blocks and series, as name="value". Repeatable. It must tell this ingester from others.`)
	fs.StringVar(&c.TenantLabel, "receive.tenant-label-name", "tenant_id", "External label that tells tenants apart.")
	fs.IntVar(&c.MaxTenants, flagTenants[2:], 1000, "Tenants that may be open at once. Samples of a further one are refused with 503. 0: no limit.")
	fs.IntVar(&c.MaxSessions, "tsdb.max-sessions", 64, "Routers whose numbers for series are remembered a tenant. A router beyond sends labels again.")
	fs.IntVar(&c.ReplayConcurrency, "tsdb.replay-concurrency", 0, "Tenants whose logs are read at once. Each takes its own head's memory and some 100 MiB. 0: one for every two CPUs.")
	fs.IntVar(&c.CutConcurrency, "tsdb.cut-concurrency", 1, "Tenants whose heads are cut into blocks at once.")
	fs.IntVar(&c.ShipConcurrency, "shipper.tenant-concurrency", 4, "Tenants whose blocks are sent at once. Of each one block is.")
	fs.Var(&c.IdleFlush, "tsdb.idle-flush", "A tenant that sent nothing for so long has its head cut into blocks, which are shipped and free its memory. 0: only by age.")
	fs.IntVar(&c.MaxFamilies, "tsdb.max-metadata", 20000, "Metric families whose type, help and unit are kept a tenant.")
}

// registerShipping takes those flags of the Shipper that make sense here: no
// other program cuts these blocks.
func (c *Config) registerShipping(fs *flag.FlagSet) {
	own := flag.NewFlagSet("", flag.ContinueOnError)
	c.Shipper.RegisterFlags(own)
	own.VisitAll(func(f *flag.Flag) {
		switch f.Name {
		case "shipper.upload-compacted", "shipper.meta-file-name", "shipper.ignore-unequal-block-size":
		default:
			fs.Var(f.Value, f.Name, f.Usage)
		}
	})
	c.Notes.DiskBytes = 16 << 20
	c.Notes.RegisterFlags("", fs)
	c.SyncDelay = model.Duration(time.Hour)
	fs.Var(&c.SyncDelay, "tsdb.sync-delay", "How long a block has to be in the bucket before the local one may go. It must be longer than any store's --sync-block-duration.")
}

// minBlock is the least time a block spans: below it blocks are dust.
const minBlock = time.Minute

// Validate names the flag that can't be right.
func (c *Config) Validate() error {
	var errs []error
	bad := func(flag, value, want string) {
		errs = append(errs, fmt.Errorf("--%s=%s: give %s", flag, value, want))
	}
	if time.Duration(c.MinBlockDuration) < minBlock {
		bad("tsdb.min-block-duration", c.MinBlockDuration.String(), "1m or more")
	}
	if c.MaxBlockDuration < c.MinBlockDuration {
		bad("tsdb.max-block-duration", c.MaxBlockDuration.String(), "--tsdb.min-block-duration or more")
	}
	if c.Retention < c.MinBlockDuration {
		bad("tsdb.retention", c.Retention.String(), "--tsdb.min-block-duration or more")
	}
	if c.OutOfOrderCapMax < 4 || c.OutOfOrderCapMax > 255 {
		bad("tsdb.out-of-order.cap-max", strconv.Itoa(c.OutOfOrderCapMax), "4 to 255")
	}
	if c.Sync != SyncNone && c.Sync != SyncBatched {
		bad("ingest.sync", strconv.Quote(c.Sync), "none or batched")
	}
	if d := time.Duration(c.SyncInterval); d < 0 || d > time.Second {
		bad("ingest.sync-interval", c.SyncInterval.String(), "0 to 1s")
	}
	for _, n := range []struct {
		flag         string
		value, least int
	}{
		{"tsdb.max-exemplars", c.MaxExemplars, 0}, {flagTenants[2:], c.MaxTenants, 0}, {"tsdb.max-sessions", c.MaxSessions, 1},
		{"tsdb.replay-concurrency", c.ReplayConcurrency, 0}, {"tsdb.cut-concurrency", c.CutConcurrency, 1}, {"shipper.tenant-concurrency", c.ShipConcurrency, 1}, {"tsdb.max-metadata", c.MaxFamilies, 0},
	} {
		if n.value < n.least {
			bad(n.flag, strconv.Itoa(n.value), fmt.Sprintf("%d or more", n.least))
		}
	}
	if !model.LabelName(c.TenantLabel).IsValid() { //nolint:staticcheck // the old rule: it becomes a label of blocks that others read
		bad("receive.tenant-label-name", strconv.Quote(c.TenantLabel), "a label name")
	}
	if _, err := c.external(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, c.Shipper.Validate(), c.Notes.Validate(""))...)
}

// replays is how many tenants' logs are read at once. The flag's own value is the
// same on every machine, so that it can be told of in the documentation.
func (c *Config) replays() int {
	if c.ReplayConcurrency > 0 {
		return c.ReplayConcurrency
	}
	return max(1, runtime.GOMAXPROCS(0)/2)
}

// external returns the labels of --label.
func (c *Config) external() (labels.Labels, error) {
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, s := range c.Labels {
		name, quoted, found := strings.Cut(s, "=")
		value, err := strconv.Unquote(quoted)
		switch {
		case !found || err != nil || value == "":
			return labels.EmptyLabels(), fmt.Errorf(`--label=%s: give name="value"`, s)
		case !model.LabelName(name).IsValid(): //nolint:staticcheck // as above
			return labels.EmptyLabels(), fmt.Errorf("--label=%s: %q is no label name", s, name)
		case name == c.TenantLabel:
			return labels.EmptyLabels(), fmt.Errorf("--label=%s: %s is the tenants' (--receive.tenant-label-name)", s, name)
		}
		b.Set(name, value)
	}
	return b.Labels(), nil
}

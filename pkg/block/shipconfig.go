package block

import (
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"time"

	"github.com/prometheus/common/model"
)

// DefaultShipperFilename is the shipper's state file, Thanos' and the one that
// Prometheus' --storage.tsdb.delay-compact-file.path is pointed at.
const DefaultShipperFilename = "thanos.shipper.json"

// ShipperConfig is how blocks are sent to the bucket.
type ShipperConfig struct {
	UploadCompacted        bool
	MetaFileName           string
	UploadConcurrency      int // files of a block at once; 0: 1
	IgnoreUnequalBlockSize bool
	HashFunc               string // "" or HashSHA256
	Interval               model.Duration
	MaxBackoff             model.Duration
	LeaseTTL               model.Duration
	IgnoreOtherOwner       bool
	QuarantineRecheck      model.Duration
}

// RegisterFlags sets the defaults and registers Thanos' flags and our own.
func (c *ShipperConfig) RegisterFlags(fs *flag.FlagSet) {
	c.Interval = model.Duration(30 * time.Second)
	c.MaxBackoff = model.Duration(2 * time.Minute)
	c.LeaseTTL = model.Duration(5 * time.Minute)
	c.QuarantineRecheck = model.Duration(time.Hour)
	fs.BoolVar(&c.UploadCompacted, "shipper.upload-compacted", false, "Ship blocks that Prometheus has compacted even when the blocks they were made from have been shipped one by one. Without it they are shipped only when something in them would else be missing from the bucket.")
	fs.StringVar(&c.MetaFileName, "shipper.meta-file-name", DefaultShipperFilename, "Name of the file in the TSDB's folder that lists the shipped blocks. Point Prometheus' --storage.tsdb.delay-compact-file.path at it.")
	fs.IntVar(&c.UploadConcurrency, "shipper.upload-concurrency", 0, "How many files of a block are sent at once. 0 means one. Blocks are sent one after the other, the oldest first.")
	fs.BoolVar(&c.IgnoreUnequalBlockSize, "shipper.ignore-unequal-block-size", false, "Ship although Prometheus' minimum and maximum block durations differ, so that it compacts blocks itself.")
	fs.StringVar(&c.HashFunc, "hash-func", "", "Hash of every file to put into meta.json: SHA256, or empty for none. Costs one more reading of each file.")
	fs.Var(&c.Interval, "shipper.interval", "Time between looks for new blocks.")
	fs.Var(&c.MaxBackoff, "shipper.max-backoff", "Longest time between tries while the bucket fails.")
	fs.Var(&c.LeaseTTL, "shipper.lease-ttl", "How long after its last sign of life a shipper with the same external labels is taken for dead, so that this one takes its place.")
	fs.BoolVar(&c.IgnoreOtherOwner, "shipper.ignore-other-owner", false, "Ship although another shipper with the same external labels is alive. Its blocks and ours can't be told apart afterwards.")
	fs.Var(&c.QuarantineRecheck, "shipper.quarantine-recheck", "Time after which a local block that was set aside as corrupt is looked at again.")
}

// Validate names the flag that can't be right.
func (c *ShipperConfig) Validate() error {
	var err error
	if c.MetaFileName == "" || c.MetaFileName != filepath.Base(c.MetaFileName) || !filepath.IsLocal(c.MetaFileName) {
		err = errors.Join(err, fmt.Errorf("--shipper.meta-file-name=%q: give the name of a file, without a folder", c.MetaFileName))
	}
	if c.MetaFileName == ownStateFilename {
		err = errors.Join(err, fmt.Errorf("--shipper.meta-file-name=%q is a file of another use; give another name", c.MetaFileName))
	}
	if c.UploadConcurrency < 0 {
		err = errors.Join(err, fmt.Errorf("--shipper.upload-concurrency=%d: give 0 or more", c.UploadConcurrency))
	}
	if c.HashFunc != "" && c.HashFunc != HashSHA256 {
		err = errors.Join(err, fmt.Errorf("--hash-func=%q: give %s or nothing", c.HashFunc, HashSHA256))
	}
	for _, d := range []struct {
		flag  string
		value model.Duration
		least time.Duration
	}{
		{"shipper.interval", c.Interval, time.Second},
		{"shipper.max-backoff", c.MaxBackoff, time.Second},
		{"shipper.lease-ttl", c.LeaseTTL, 10 * time.Second},
		{"shipper.quarantine-recheck", c.QuarantineRecheck, time.Second},
	} {
		if time.Duration(d.value) < d.least {
			err = errors.Join(err, fmt.Errorf("--%s=%s: give %s or more", d.flag, d.value, model.Duration(d.least)))
		}
	}
	return err
}

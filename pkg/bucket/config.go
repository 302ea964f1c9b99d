package bucket

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/common/model"
)

// Config is what an operator may set; RegisterFlags fills in the defaults.
type Config struct {
	Objstore      string // the YAML itself
	ObjstoreFile  string // or the path of a file with it, which is read again when it changes
	MaxConcurrent int    // requests waiting for the store at once
	MaxRetries    int    // of one request
	Timeout       model.Duration
}

// RegisterFlags registers the flags with their defaults.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	c.Timeout = model.Duration(time.Minute)
	fs.StringVar(&c.Objstore, "objstore.config", "",
		"The bucket, as Thanos' objstore YAML: type (S3, GCS, AZURE or FILESYSTEM), config, prefix. $(NAME) stands for an environment variable.")
	fs.StringVar(&c.ObjstoreFile, "objstore.config-file", "",
		"Path of a file with that YAML. New credentials in it are used within 10s, or as soon as the store refuses the old ones.")
	fs.IntVar(&c.MaxConcurrent, "objstore.max-concurrent-requests", 128,
		"Requests that wait for the store at once. While the store throttles, fewer are made.")
	fs.IntVar(&c.MaxRetries, "objstore.max-retries", 5,
		"How often a request is made again after a failure that may pass. All requests together get one retry for every 5 that succeed; 0 turns retries off.")
	fs.Var(&c.Timeout, "objstore.request-timeout",
		"How long a request may stand still, without an answer or a further byte, before it is given up. Uploads get it for every 16 MiB.")
}

// Given tells whether a bucket is configured at all.
func (c *Config) Given() bool { return c.Objstore != "" || c.ObjstoreFile != "" }

// Validate returns all that is wrong, by flag.
func (c *Config) Validate() error {
	var errs []error
	if c.Objstore != "" && c.ObjstoreFile != "" {
		errs = append(errs, errors.New("--objstore.config and --objstore.config-file exclude each other"))
	}
	if c.MaxConcurrent < 1 {
		errs = append(errs, fmt.Errorf("--objstore.max-concurrent-requests=%d: must be at least 1", c.MaxConcurrent))
	}
	if c.MaxRetries < 0 {
		errs = append(errs, fmt.Errorf("--objstore.max-retries=%d: must not be negative", c.MaxRetries))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("--objstore.request-timeout=%s: must be above 0s", c.Timeout))
	}
	return errors.Join(errs...)
}

// read returns the YAML and the name for it in messages.
func (c *Config) read() (content []byte, from string, err error) {
	switch {
	case c.ObjstoreFile != "":
		content, err = os.ReadFile(c.ObjstoreFile)
		return content, "--objstore.config-file=" + c.ObjstoreFile, err
	case c.Objstore != "":
		return []byte(c.Objstore), "--objstore.config", nil
	}
	return nil, "", errors.New("no bucket: give --objstore.config-file or --objstore.config")
}

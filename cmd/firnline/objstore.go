package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/thanos-io/objstore"

	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/content"
)

// bucketConfig is the bucket's configuration, checked down to its YAML.
type bucketConfig struct {
	bucket.Config
	required bool
}

// Validate lists everything that is wrong, in the YAML too.
func (c *bucketConfig) Validate() error {
	errs := []error{c.Config.Validate()}
	if !c.Given() {
		if c.required {
			errs = append(errs, errors.New("--objstore.config-file: a bucket is needed; give the file, or its content by --objstore.config"))
		}
		return errors.Join(errs...)
	}
	if _, err := c.target(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// target reads the YAML.
func (c *bucketConfig) target() (*bucket.Target, error) {
	text, source := []byte(c.Objstore), "--objstore.config"
	if c.ObjstoreFile != "" {
		var err error
		source = "--objstore.config-file: " + c.ObjstoreFile
		if text, err = os.ReadFile(c.ObjstoreFile); err != nil {
			return nil, fmt.Errorf("--objstore.config-file: %w", err)
		}
	}
	t, err := bucket.ParseConfig(text)
	if err != nil {
		return nil, content.Name(source, err)
	}
	return t, nil
}

// folderMissing tells of a bucket that is a local folder and isn't there.
func (c *bucketConfig) folderMissing() error {
	t, err := c.target()
	if err != nil || t.Type != objstore.FILESYSTEM {
		return err
	}
	if info, err := os.Stat(t.Bucket()); err != nil {
		return fmt.Errorf("bucket folder %s: %w; a folder is not made by looking at it [%s]", t.Bucket(), errors.Unwrap(err), bucket.CauseMissing)
	} else if !info.IsDir() {
		return fmt.Errorf("bucket folder %s: it is a file [%s]", t.Bucket(), bucket.CauseMissing)
	}
	return nil
}

// open makes the bucket, with metrics, traces and retries.
func (c *bucketConfig) open(ctx context.Context, p *process) (*bucket.Handle, error) {
	return bucket.Open(ctx, c.Config, bucket.Parts{Log: p.log, Metrics: p.reg, Tracers: p.tracing.Provider})
}

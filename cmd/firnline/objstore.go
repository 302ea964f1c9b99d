package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/firnline/firnline/pkg/bucket"
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
	content, source := []byte(c.Objstore), "--objstore.config"
	if c.ObjstoreFile != "" {
		var err error
		source = "--objstore.config-file: " + c.ObjstoreFile
		if content, err = os.ReadFile(c.ObjstoreFile); err != nil {
			return errors.Join(append(errs, fmt.Errorf("--objstore.config-file: %w", err))...)
		}
	}
	if _, err := bucket.ParseConfig(content); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", source, err))
	}
	return errors.Join(errs...)
}

// open makes the bucket, with metrics, traces and retries.
func (c *bucketConfig) open(ctx context.Context, p *process) (*bucket.Handle, error) {
	return bucket.Open(ctx, c.Config, bucket.Parts{Log: p.log, Metrics: p.reg, Tracers: p.tracing.Provider})
}

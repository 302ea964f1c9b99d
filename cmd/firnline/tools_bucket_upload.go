package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/tools"
)

// externalFlags are the external labels of blocks that come from outside.
type externalFlags struct {
	given  []string
	labels labels.Labels
}

// RegisterFlags implements configurer.
func (e *externalFlags) RegisterFlags(fs *flag.FlagSet) {
	fs.Func("label", `External label of the blocks, such as cluster="eu". Repeatable. Labels that blocks have already are replaced by these.`, func(s string) error {
		e.given = append(e.given, s)
		return nil
	})
}

// Validate implements configurer.
func (e *externalFlags) Validate() (err error) {
	e.labels, err = labelsOf(e.given)
	return err
}

// labelsOf reads labels given as name="value", as Thanos takes them, or name=value.
func labelsOf(given []string) (labels.Labels, error) {
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, s := range given {
		name, value, ok := strings.Cut(s, "=")
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		if !ok || value == "" || !model.LegacyValidation.IsValidLabelName(name) {
			return labels.EmptyLabels(), fmt.Errorf("--label: %q: want a name and a value, such as cluster=\"eu\"", s)
		}
		b.Set(name, value)
	}
	return b.Labels(), nil
}

// uploadFlags say what is uploaded and how.
type uploadFlags struct {
	path, hash  string
	concurrency int
}

// RegisterFlags implements configurer.
func (u *uploadFlags) RegisterFlags(fs *flag.FlagSet) {
	fs.StringVar(&u.path, "path", "", "Folder with blocks, such as Prometheus' data folder, or one block.")
	u.how(fs)
}

// how registers what is the same for all that upload.
func (u *uploadFlags) how(fs *flag.FlagSet) {
	fs.IntVar(&u.concurrency, "shipper.upload-concurrency", 4, "Files of a block that are sent at once.")
	fs.StringVar(&u.hash, "hash-func", "", "Put a hash of each file into meta.json: SHA256, or nothing.")
}

// to is an upload into a bucket, as the flags say.
func (u *uploadFlags) to(b *bucket.Handle, external labels.Labels) tools.Upload {
	return tools.Upload{Bucket: b, Labels: external, Concurrency: u.concurrency, HashFunc: u.hash}
}

// Validate implements configurer.
func (u *uploadFlags) Validate() error {
	var errs []error
	if u.concurrency < 1 {
		errs = append(errs, fmt.Errorf("--shipper.upload-concurrency=%d: give 1 or more", u.concurrency))
	}
	if u.hash != "" && u.hash != block.HashSHA256 {
		errs = append(errs, fmt.Errorf("--hash-func=%q: give SHA256 or nothing", u.hash))
	}
	return errors.Join(errs...)
}

func newBucketUpload() *tool {
	var what uploadFlags
	var ext externalFlags
	out := outputConfig{list: true}
	bkt := bucketConfig{required: true}
	path := oneCheck(func() error {
		if what.path == "" {
			return errors.New("--path: give the folder with the blocks")
		}
		return nil
	})
	return &tool{
		use: "upload", aliases: []string{"upload-blocks"}, short: "Upload the blocks of a folder",
		long: `Upload the blocks of a folder, the oldest first, with external labels. Each is read
and verified before it goes, and visible only when it has come whole. What is there
already is not sent again, so that an upload that was cut off goes on. A block that
fails stops no other. Samples that are still in Prometheus' head, the last two to
three hours, are in no block: see firnline tools import prometheus --head.`,
		example: `  firnline tools bucket upload --path=/var/lib/prometheus --label='cluster="eu"' --objstore.config-file=bucket.yml`,
		parts:   []configurer{&what, path, &ext, &out, &bkt},
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			return r.withBucket(ctx, &bkt, func(b *bucket.Handle) error {
				return r.upload(ctx, what.to(b, ext.labels), what.path, &out)
			})
		},
	}
}

// upload sends the blocks in dir and prints what became of them.
func (r *toolRun) upload(ctx context.Context, u tools.Upload, dir string, out *outputConfig) error {
	p := r.progress("upload")
	u.Log, u.Sent = r.log, p.sizes
	sent, err := u.Dir(ctx, dir)
	p.end()
	return errors.Join(r.tellSent(sent, out), err)
}

// tellSent prints which blocks were sent.
func (r *toolRun) tellSent(sent []tools.Sent, out *outputConfig) error {
	if sent == nil {
		sent = []tools.Sent{} // so that JSON has a list
	}
	t := &table{columns: columnsOf("block", "size", "state")}
	n, bytes := 0, int64(0)
	for _, s := range sent {
		state := "sent"
		switch {
		case s.Error != "":
			state = "failed"
		case s.Already:
			state = "there already"
		default:
			n++
		}
		bytes += s.Bytes
		t.add(s.Block.String(), humanBytes(s.Bytes), state)
	}
	fmt.Fprintf(r.talk, "%s of %d sent, %s.\n", counted(n, "block"), len(sent), humanBytes(bytes))
	return out.printTable(r.out, sent, t)
}

// oneCheck is a part of the configuration that is no more than a check.
type oneCheck func() error

// RegisterFlags implements configurer.
func (oneCheck) RegisterFlags(*flag.FlagSet) {}

// Validate implements configurer.
func (f oneCheck) Validate() error { return f() }

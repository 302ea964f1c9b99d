package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact"
)

// deleteTools are the verbs of firnline tools delete.
func deleteTools() toolGroup {
	return toolGroup{name: "delete", short: "Requests to delete series", tools: []*tool{newDeleteCreate(), newDeleteList(), newDeleteCancel()}}
}

// deleteFlags say what is to be deleted.
type deleteFlags struct {
	selectors   []string
	start, end  block.TimeBound
	reason      string
	everything  bool
	dryRun, yes bool
}

// RegisterFlags implements configurer.
func (d *deleteFlags) RegisterFlags(fs *flag.FlagSet) {
	fs.Func("match", `Selector of series, such as up{job="a"}; external labels count too. Repeatable: a series need match only one.`, func(s string) error {
		d.selectors = append(d.selectors, s)
		return nil
	})
	fs.Var(&d.start, "start", "Delete samples from this time on: a time (2026-01-31T00:00:00Z) or a duration back from now (-6w). Default: from the first.")
	fs.Var(&d.end, "end", "Delete samples up to this time, which counts too. Default, and at most: now.")
	fs.StringVar(&d.reason, "reason", "", "Why, for the record.")
	fs.BoolVar(&d.everything, "everything", false, "Allow selectors that nearly every series matches.")
	fs.BoolVar(&d.dryRun, "dry-run", false, "Only print what would be deleted. So it is without --yes, too.")
	fs.BoolVar(&d.yes, "yes", false, "Write the request: the samples are hidden within a minute and removed at the next compactions.")
}

// Validate implements configurer.
func (d *deleteFlags) Validate() error {
	var errs []error
	if d.dryRun && d.yes {
		errs = append(errs, errors.New("--dry-run, --yes: give one of them"))
	}
	if len(d.selectors) == 0 {
		errs = append(errs, errors.New(`--match: give a selector of the series, such as --match='up{job="a"}'`))
	} else if err := d.request(time.Now()).Check(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// request is what the flags ask for.
func (d *deleteFlags) request(now time.Time) *block.DeleteRequest {
	return &block.DeleteRequest{
		Selectors: d.selectors, Everything: d.everything, Reason: d.reason,
		MinTime: d.start.Millis(now, math.MinInt64), MaxTime: min(d.end.Millis(now, math.MaxInt64), now.UnixMilli()),
	}
}

func newDeleteCreate() *tool {
	var what deleteFlags
	var out outputConfig
	bkt := bucketConfig{required: true}
	return &tool{
		use: "create", short: "Ask for series to be deleted",
		long: `Ask for the samples of series to be deleted from a bucket, in an interval of time.
Gateways, and queriers that know the bucket, hide them within a minute; compactors
remove them for good. Until then the request can be cancelled.

Without --yes nothing is written: what would be hit is printed, block by block.`,
		example: `  firnline tools delete create --match='{namespace="dev"}' --end=-4w --objstore.config-file=bucket.yml
  firnline tools delete create --match='login_total{user=~"ann|bob"}' --reason="asked to" --yes ...`,
		parts: []configurer{&what, &out, &bkt},
		run: func(ctx context.Context, r *toolRun, _ []string) (err error) {
			b, err := r.open(ctx, &bkt)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, b.Close()) }()
			request := what.request(time.Now())
			request.By = whoami()
			if !what.yes {
				return explained(b, what.hits(ctx, r, b, request, out))
			}
			made, err := block.CreateDelete(ctx, b, *request)
			if err != nil {
				return explained(b, err)
			}
			fmt.Fprintln(r.talk, "The samples are hidden within a minute, and removed at the next compactions.")
			return out.print(r.out, made, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, made.ID)
				return err
			})
		},
	}
}

// hits prints what a request would hit.
func (d *deleteFlags) hits(ctx context.Context, r *toolRun, b block.Bucket, request *block.DeleteRequest, out outputConfig) error {
	metas, err := compact.LiveBlocks(ctx, b, r.log)
	if err != nil {
		return err
	}
	hits, err := compact.DryRunDelete(ctx, b, metas, request)
	if err != nil {
		return err
	}
	if err := out.print(r.out, hits, hits.Write); err != nil {
		return err
	}
	fmt.Fprintln(r.talk, "Nothing was written. Give --yes to do it.")
	if hits.Failed > 0 {
		return fmt.Errorf("%d blocks could not be read: they may hold more", hits.Failed)
	}
	return nil
}

// whoami is who runs this process, and where.
func whoami() string {
	name := "?"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		return name
	}
	return name + "@" + host
}

func newDeleteList() *tool {
	var out outputConfig
	bkt := bucketConfig{required: true}
	return &tool{
		use: "list", short: "List the requests to delete series",
		long:    `List the requests to delete series that are in a bucket, with their state, the newest last.`,
		example: `  firnline tools delete list --objstore.config-file=bucket.yml -o json`,
		parts:   []configurer{&out, &bkt},
		run: func(ctx context.Context, r *toolRun, _ []string) (err error) {
			b, err := r.open(ctx, &bkt)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, b.Close()) }()
			all, err := block.ListDeletes(ctx, b)
			if err != nil && !errors.Is(err, block.ErrCorrupt) && !errors.Is(err, block.ErrUnknownVersion) {
				return explained(b, err)
			}
			if all == nil {
				all = []*block.DeleteRequest{} // so that JSON has a list
			}
			return errors.Join(out.print(r.out, all, func(w io.Writer) error { return deleteTable(w, all) }), err)
		},
	}
}

// deleteTable prints requests, one a line.
func deleteTable(w io.Writer, all []*block.DeleteRequest) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tSTATE\tCREATED\tFROM\tTO\tBY\tSERIES\tREASON")
	for _, d := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.ID, d.State, d.Created.UTC().Format(time.RFC3339),
			since(d.MinTime), time.UnixMilli(d.MaxTime).UTC().Format(time.RFC3339), printable(d.By), printable(strings.Join(d.Selectors, " ")), printable(d.Reason))
	}
	return t.Flush()
}

// since writes the begin of an interval, in ms.
func since(ms int64) string {
	if t := time.UnixMilli(ms).UTC(); t.Year() > 1 && t.Year() < 10000 {
		return t.Format(time.RFC3339)
	}
	return "the first"
}

// printable replaces what could upset a terminal or a table.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

func newDeleteCancel() *tool {
	bkt := bucketConfig{required: true}
	return &tool{
		use: "cancel ID", short: "Take back a request to delete series",
		long: `Take back a request to delete series: its samples show again within a minute, as
far as they have not been removed from blocks. One that is done can't be taken back.`,
		example: `  firnline tools delete cancel 01JXYZ0000000000000000000A --objstore.config-file=bucket.yml`,
		args:    oneID,
		parts:   []configurer{&bkt},
		run: func(ctx context.Context, r *toolRun, args []string) (err error) {
			b, err := r.open(ctx, &bkt)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, b.Close()) }()
			if _, err := block.CancelDelete(ctx, b, ulid.MustParse(args[0])); err != nil {
				return explained(b, err)
			}
			fmt.Fprintln(r.talk, "The request is cancelled: what is left of its samples shows again within a minute.")
			return nil
		},
	}
}

// oneID wants the id of a request as the only argument.
func oneID(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError{fmt.Errorf("want one argument, the id of a request as `firnline tools delete list` shows it; got %d", len(args))}
	}
	if _, err := ulid.ParseStrict(args[0]); err != nil {
		return usageError{fmt.Errorf("%q is no id of a request: it has 26 letters and digits, as `firnline tools delete list` shows it", args[0])}
	}
	return nil
}

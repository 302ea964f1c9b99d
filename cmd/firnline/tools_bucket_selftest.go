package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firnline/firnline/pkg/bucket"
)

// ability is one thing that a bucket can or can't do.
type ability struct {
	Name   string `json:"ability"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

func newBucketSelfTest() *tool {
	out := outputConfig{list: true}
	bkt := bucketConfig{required: true}
	return &tool{
		use: "selftest", short: "Find out what may be done with a bucket, and how well",
		long: `Write, read, list, replace and remove one small object below firnline/selftest/, as a
component does at its start, and tell what is possible: who reads needs list and read,
who ships write too, compactors all of it. Without conditional writes compactors can't
share work. Exit code 1 says that something is not possible, 3 that nothing is.`,
		example: `  firnline tools bucket selftest --objstore.config-file=bucket.yml`,
		parts:   []configurer{&out, &bkt},
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			return r.withBucket(ctx, &bkt, func(b *bucket.Handle) error {
				can := bucket.SelfTest(ctx, b.Bucket, time.Now)
				found := abilities(can)
				t := &table{columns: columnsOf("ability", "ok", "detail")}
				for _, a := range found {
					t.add(a.Name, map[bool]string{true: "yes", false: "no"}[a.OK], a.Detail)
				}
				if err := out.printTable(r.out, found, t); err != nil {
					return err
				}
				return errors.Join(can.ListErr, can.WriteErr, can.ReadErr, can.DeleteErr, can.ConditionErr, skewed(can))
			})
		},
	}
}

// abilities lists what was found out. What was not tried, since it needs what failed, is not there.
func abilities(can bucket.Abilities) []ability {
	var out []ability
	add := func(name string, err error, detail string) bool {
		if err != nil {
			detail = err.Error()
		}
		out = append(out, ability{name, err == nil, detail})
		return err == nil
	}
	if !add("list", can.ListErr, "") || !add("write", can.WriteErr, "in "+can.Latency.Round(time.Millisecond).String()) {
		return out
	}
	if add("read", can.ReadErr, "") {
		add("conditional writes", can.ConditionErr, "")
	}
	add("remove", can.DeleteErr, "")
	add("clock", skewed(can), fmt.Sprintf("the bucket's is %s ahead", can.Skew.Round(time.Second)))
	return out
}

// skewed tells of clocks that differ too much.
func skewed(can bucket.Abilities) error {
	if can.Skew.Abs() <= maxSkew {
		return nil
	}
	return fmt.Errorf("the bucket's clock is %s ahead: set one of them right", can.Skew.Round(time.Second))
}

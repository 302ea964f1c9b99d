package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// selfTestPrefix is where SelfTest's objects are.
const selfTestPrefix = "firnline/selftest/"

// Abilities is what SelfTest found out. Where a step failed, its error says why;
// steps that need it were not tried.
type Abilities struct {
	ListErr   error // nil: the bucket is there, and can be listed
	WriteErr  error // nil: objects can be written
	ReadErr   error // nil: and read back as they were written
	DeleteErr error // nil: and removed

	// Conditional tells that creates and replaces are refused when they should
	// be, so that a lease holds. ConditionErr says what was seen if they are not.
	Conditional  bool
	ConditionErr error

	// Skew is the bucket's clock less ours, to about a second and the time of
	// one request; 0 if nothing could be written.
	Skew    time.Duration
	Latency time.Duration // of one small write
}

// ReadOnly tells that the bucket can be listed, and not written for want of rights.
func (a Abilities) ReadOnly() bool {
	return a.ListErr == nil && classify(a.WriteErr) == classDenied
}

// Err joins what a component needs that reads, and that writes too if write is set.
func (a Abilities) Err(write bool) error {
	if !write || a.ListErr != nil {
		return a.ListErr
	}
	return errors.Join(a.WriteErr, a.ReadErr)
}

// SelfTest finds out what b can do, with one object of a random name under
// firnline/selftest/, in about ten small requests. The object is removed at the
// end; where removing is not allowed, it stays. now is our clock.
func SelfTest(ctx context.Context, b Bucket, now func() time.Time) Abilities {
	var a Abilities
	if err := b.Iter(ctx, selfTestPrefix, func(string) error { return nil }); err != nil {
		a.ListErr = fmt.Errorf("list: %w", err)
		return a
	}
	t := selfTest{b: b, name: selfTestPrefix + rand.Text(), now: now}
	etag, err := t.write(ctx, &a)
	if err != nil {
		a.WriteErr = fmt.Errorf("write: %w", err)
		return a
	}
	if err := t.read(ctx, &a, etag); err != nil {
		a.ReadErr = fmt.Errorf("read: %w", err)
	} else if err := t.conditions(ctx, etag); err != nil {
		a.ConditionErr = fmt.Errorf("conditional writes: %w", err)
	} else {
		a.Conditional = true
	}
	if err := b.Delete(ctx, t.name); err != nil {
		a.DeleteErr = fmt.Errorf("delete: %w", err)
	}
	return a
}

type selfTest struct {
	b    Bucket
	name string
	now  func() time.Time
}

func (t selfTest) body(n int) []byte { return fmt.Appendf(nil, "%s %d\n", t.name, n) }

// write creates the object and compares the clocks.
func (t selfTest) write(ctx context.Context, a *Abilities) (etag string, err error) {
	start := t.now()
	if etag, err = t.b.PutIf(ctx, t.name, t.body(1), ""); err != nil {
		return "", err
	}
	a.Latency = t.now().Sub(start)
	if attrs, err := t.b.Attributes(ctx, t.name); err == nil {
		a.Skew = attrs.LastModified.Sub(start.Add(a.Latency / 2))
	}
	return etag, nil
}

// read reads the object back, and finds it in a listing.
func (t selfTest) read(ctx context.Context, a *Abilities, etag string) error {
	body, have, err := t.b.GetIf(ctx, t.name, "")
	switch {
	case err != nil:
		return err
	case !bytes.Equal(body, t.body(1)):
		return fmt.Errorf("%s: read back %d bytes that are not those written", t.name, len(body))
	case have != etag:
		return fmt.Errorf("%s: ETag %q when written and %q when read", t.name, etag, have)
	}
	listed := false
	err = t.b.ListSizes(ctx, t.name, func(o Object) error {
		listed = listed || o.Name == t.name && o.SizeBytes == int64(len(body))
		return nil
	})
	if err == nil && !listed {
		return fmt.Errorf("%s: written, and not in a listing with its size", t.name)
	}
	return err
}

// conditions replaces the object, and tries what must be refused.
func (t selfTest) conditions(ctx context.Context, etag string) error {
	if _, err := t.b.PutIf(ctx, t.name, t.body(2), ""); !t.b.IsConditionFailedErr(err) {
		return refused("a second create", err)
	}
	next, err := t.b.PutIf(ctx, t.name, t.body(3), etag)
	if err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	if _, err := t.b.PutIf(ctx, t.name, t.body(4), etag); !t.b.IsConditionFailedErr(err) {
		return refused("a replace of an old version", err)
	}
	body, _, err := t.b.GetIf(ctx, t.name, next)
	if err == nil && body != nil {
		return errors.New("an unchanged object was sent again, or another write got through")
	}
	return err
}

// refused says that what was to be refused was not.
func refused(what string, err error) error {
	if err == nil {
		return fmt.Errorf("%s was not refused: the store, or a proxy before it, ignores conditions", what)
	}
	return fmt.Errorf("%s: %w", what, err)
}

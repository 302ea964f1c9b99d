// Package buckettest is the contract of a bucket as a test suite, to be run over
// every provider and over every layer.
package buckettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/thanos-io/objstore"

	"github.com/firnline/firnline/pkg/bucket"
)

// Run checks that the buckets open makes do what bucket.Bucket promises. Each
// call of open must give an empty bucket.
func Run(t *testing.T, open func(t *testing.T) bucket.Bucket) {
	for name, check := range map[string]func(*testing.T, bucket.Bucket){
		"read and write":     readAndWrite,
		"ranges":             ranges,
		"missing":            missing,
		"iterate":            iterate,
		"iterate attributes": iterateAttributes,
		"list sizes":         listSizes,
		"stop listing":       stopListing,
		"conditional":        conditional,
		"one winner":         oneWinner,
		"one replacer":       oneReplacer,
		"copy":               copied,
		"failed upload":      failedUpload,
		"cancelled":          cancelled,
	} {
		t.Run(name, func(t *testing.T) { check(t, open(t)) })
	}
}

func put(t *testing.T, b bucket.Bucket, name, body string) {
	t.Helper()
	require.NoError(t, b.Upload(t.Context(), name, bytes.NewReader([]byte(body))))
}

func read(t *testing.T, rc io.ReadCloser, err error) string {
	t.Helper()
	require.NoError(t, err)
	body, err := io.ReadAll(rc)
	require.NoError(t, err)
	require.NoError(t, rc.Close())
	return string(body)
}

func readAndWrite(t *testing.T, b bucket.Bucket) {
	put(t, b, "a/b/c", "first")
	rc, err := b.Get(t.Context(), "a/b/c")
	require.NoError(t, err)
	size, sizeErr := objstore.TryToGetSize(rc)
	require.NoError(t, sizeErr)
	require.Equal(t, int64(5), size, "a body tells its size")
	require.Equal(t, "first", read(t, rc, err))

	put(t, b, "a/b/c", "second, and longer")
	rc, err = b.Get(t.Context(), "a/b/c")
	require.Equal(t, "second, and longer", read(t, rc, err))

	ok, err := b.Exists(t.Context(), "a/b/c")
	require.NoError(t, err)
	require.True(t, ok)
	attrs, err := b.Attributes(t.Context(), "a/b/c")
	require.NoError(t, err)
	require.Equal(t, int64(18), attrs.Size)
	require.WithinDuration(t, time.Now(), attrs.LastModified, time.Minute)

	require.NoError(t, b.Delete(t.Context(), "a/b/c"))
	ok, err = b.Exists(t.Context(), "a/b/c")
	require.NoError(t, err)
	require.False(t, ok)
	require.Empty(t, names(t, b, "a", objstore.WithRecursiveIter()), "an emptied folder is gone")

	put(t, b, "empty", "")
	rc, err = b.Get(t.Context(), "empty")
	require.Equal(t, "", read(t, rc, err))
}

func ranges(t *testing.T, b bucket.Bucket) {
	put(t, b, "o", "0123456789")
	for _, c := range []struct {
		off, length int64
		want        string
	}{{0, 10, "0123456789"}, {3, 4, "3456"}, {0, -1, "0123456789"}, {7, -1, "789"}, {9, 1, "9"}, {6, 100, "6789"}} {
		rc, err := b.GetRange(t.Context(), "o", c.off, c.length)
		require.Equal(t, c.want, read(t, rc, err), "range %d+%d", c.off, c.length)
	}
	if rc, err := b.GetRange(t.Context(), "o", 50, 5); err == nil {
		_, err = io.ReadAll(rc)
		require.Error(t, err, "a range behind the end")
		require.NoError(t, rc.Close())
	}
}

func missing(t *testing.T, b bucket.Bucket) {
	ctx := t.Context()
	put(t, b, "there/too", "x")
	for _, name := range []string{"not", "there", "there/not"} {
		_, err := b.Get(ctx, name)
		require.Error(t, err)
		require.True(t, b.IsObjNotFoundErr(err), "get: %v", err)
		require.True(t, b.IsObjNotFoundErr(fmt.Errorf("wrapped: %w", err)), "wrapped: %v", err)
		require.False(t, b.IsAccessDeniedErr(err))
		require.False(t, b.IsConditionFailedErr(err))
		_, err = b.GetRange(ctx, name, 0, 1)
		require.True(t, b.IsObjNotFoundErr(err), "get range: %v", err)
		_, err = b.Attributes(ctx, name)
		require.True(t, b.IsObjNotFoundErr(err), "attributes: %v", err)
		_, _, err = b.GetIf(ctx, name, "")
		require.True(t, b.IsObjNotFoundErr(err), "get if: %v", err)
		_, _, err = b.GetIf(ctx, name, "0123")
		require.True(t, b.IsObjNotFoundErr(err), "get if changed: %v", err)
		ok, err := b.Exists(ctx, name)
		require.NoError(t, err)
		require.False(t, ok)
		if err := b.Delete(ctx, name); err != nil { // S3 does not mind
			require.True(t, b.IsObjNotFoundErr(err), "delete: %v", err)
		}
	}
	require.False(t, b.IsObjNotFoundErr(nil))
	require.False(t, b.IsObjNotFoundErr(errors.New("something else")))
	require.Empty(t, names(t, b, "nowhere"))
	require.Empty(t, sizes(t, b, "nowhere"))
}

func names(t *testing.T, b bucket.Bucket, dir string, opts ...objstore.IterOption) []string {
	t.Helper()
	var out []string
	require.NoError(t, b.Iter(t.Context(), dir, func(name string) error {
		out = append(out, name)
		return nil
	}, opts...))
	slices.Sort(out) // no provider promises an order
	return out
}

func fill(t *testing.T, b bucket.Bucket) {
	for _, name := range []string{"top", "x/1", "x/2", "x/y/3", "xx/4", "x-5"} {
		put(t, b, name, name)
	}
}

func iterate(t *testing.T, b bucket.Bucket) {
	fill(t, b)
	recursive := objstore.WithRecursiveIter()
	require.Equal(t, []string{"top", "x-5", "x/", "xx/"}, names(t, b, ""))
	require.Equal(t, []string{"x/1", "x/2", "x/y/"}, names(t, b, "x"))
	require.Equal(t, []string{"x/1", "x/2", "x/y/"}, names(t, b, "x/"))
	require.Equal(t, []string{"x/1", "x/2", "x/y/3"}, names(t, b, "x", recursive))
	require.Equal(t, []string{"top", "x-5", "x/1", "x/2", "x/y/3", "xx/4"}, names(t, b, "", recursive))
	require.Empty(t, names(t, b, "top"), "an object is no folder")
}

func iterateAttributes(t *testing.T, b bucket.Bucket) {
	fill(t, b)
	require.Contains(t, b.SupportedIterOptions(), objstore.UpdatedAt)
	seen := 0
	require.NoError(t, b.IterWithAttributes(t.Context(), "x", func(a objstore.IterObjectAttributes) error {
		seen++
		modified, ok := a.LastModified()
		require.True(t, ok, a.Name)
		require.WithinDuration(t, time.Now(), modified, time.Minute)
		return nil
	}, objstore.WithRecursiveIter(), objstore.WithUpdatedAt()))
	require.Equal(t, 3, seen)
}

func sizes(t *testing.T, b bucket.Bucket, prefix string) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	require.NoError(t, b.ListSizes(t.Context(), prefix, func(o bucket.Object) error {
		require.NotContains(t, out, o.Name)
		require.WithinDuration(t, time.Now(), o.LastModified, time.Minute)
		out[o.Name] = o.SizeBytes
		return nil
	}))
	return out
}

func listSizes(t *testing.T, b bucket.Bucket) {
	fill(t, b)
	require.Equal(t, map[string]int64{"x/1": 3, "x/2": 3, "x/y/3": 5}, sizes(t, b, "x/"))
	require.Equal(t, map[string]int64{"x/1": 3, "x/2": 3, "x/y/3": 5, "xx/4": 4, "x-5": 3}, sizes(t, b, "x"), "a prefix need not be a folder")
	require.Equal(t, []string{"top", "x-5", "x/1", "x/2", "x/y/3", "xx/4"}, slices.Sorted(maps.Keys(sizes(t, b, ""))))
}

func stopListing(t *testing.T, b bucket.Bucket) {
	fill(t, b)
	stop, calls := errors.New("enough"), 0
	require.ErrorIs(t, b.ListSizes(t.Context(), "", func(bucket.Object) error { calls++; return stop }), stop)
	require.ErrorIs(t, b.Iter(t.Context(), "", func(string) error { calls++; return stop }), stop)
	require.ErrorIs(t, b.IterWithAttributes(t.Context(), "", func(objstore.IterObjectAttributes) error { calls++; return stop }), stop)
	require.Equal(t, 3, calls, "nothing is retried for an error of the caller's own")
}

func conditional(t *testing.T, b bucket.Bucket) {
	ctx := t.Context()
	first, err := b.PutIf(ctx, "c/lease", []byte("one"), "")
	require.NoError(t, err)
	require.NotEmpty(t, first)

	_, err = b.PutIf(ctx, "c/lease", []byte("again"), "")
	require.True(t, b.IsConditionFailedErr(err), "create twice: %v", err)
	require.False(t, b.IsObjNotFoundErr(err))

	body, etag, err := b.GetIf(ctx, "c/lease", "")
	require.NoError(t, err)
	require.Equal(t, "one", string(body))
	require.Equal(t, first, etag)
	body, etag, err = b.GetIf(ctx, "c/lease", first)
	require.NoError(t, err)
	require.Nil(t, body, "unchanged")
	require.Equal(t, first, etag)

	second, err := b.PutIf(ctx, "c/lease", []byte("two"), first)
	require.NoError(t, err)
	require.NotEqual(t, first, second)
	_, err = b.PutIf(ctx, "c/lease", []byte("late"), first)
	require.True(t, b.IsConditionFailedErr(err), "stale replace: %v", err)
	body, etag, err = b.GetIf(ctx, "c/lease", first)
	require.NoError(t, err)
	require.Equal(t, "two", string(body))
	require.Equal(t, second, etag)

	_, err = b.PutIf(ctx, "c/none", []byte("x"), second)
	require.True(t, b.IsConditionFailedErr(err), "replace what is not there: %v", err)
	require.Equal(t, map[string]int64{"c/lease": 3}, sizes(t, b, "c/"))
}

// race runs PutIf in n goroutines at once and counts those that won.
func race(t *testing.T, b bucket.Bucket, n int, etag string) (won int) {
	var (
		wg     sync.WaitGroup
		errs   = make([]error, n)
		winner string
	)
	for i := range n {
		wg.Go(func() { _, errs[i] = b.PutIf(t.Context(), "race", fmt.Appendf(nil, "writer %d", i), etag) })
	}
	wg.Wait()
	for i, err := range errs {
		if err == nil {
			won++
			winner = fmt.Sprintf("writer %d", i)
			continue
		}
		require.True(t, b.IsConditionFailedErr(err), "writer %d: %v", i, err)
	}
	body, _, err := b.GetIf(t.Context(), "race", "")
	require.NoError(t, err)
	if won == 1 {
		require.Equal(t, winner, string(body))
	}
	return won
}

func oneWinner(t *testing.T, b bucket.Bucket) { require.Equal(t, 1, race(t, b, 16, "")) }

func oneReplacer(t *testing.T, b bucket.Bucket) {
	etag, err := b.PutIf(t.Context(), "race", []byte("before"), "")
	require.NoError(t, err)
	require.Equal(t, 1, race(t, b, 16, etag))
}

func copied(t *testing.T, b bucket.Bucket) {
	err := b.Copy(t.Context(), "c/none", "c/to")
	if errors.Is(err, errors.ErrUnsupported) {
		require.Empty(t, sizes(t, b, ""))
		return
	}
	require.True(t, b.IsObjNotFoundErr(err), "%v", err)
	put(t, b, "c/from", "whole")
	put(t, b, "c/to", "something longer")
	require.NoError(t, b.Copy(t.Context(), "c/from", "c/to"))
	rc, err := b.Get(t.Context(), "c/to")
	require.Equal(t, "whole", read(t, rc, err))
	rc, err = b.Get(t.Context(), "c/from")
	require.Equal(t, "whole", read(t, rc, err))
}

// failedUpload: an upload whose source fails leaves nothing to be seen.
func failedUpload(t *testing.T, b bucket.Bucket) {
	broken := errors.New("disk error")
	r := io.MultiReader(bytes.NewReader(make([]byte, 64<<10)), failing{broken})
	require.Error(t, b.Upload(t.Context(), "half", r))
	ok, err := b.Exists(t.Context(), "half")
	require.NoError(t, err)
	require.False(t, ok)
	require.Empty(t, sizes(t, b, ""))
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func cancelled(t *testing.T, b bucket.Bucket) {
	put(t, b, "o", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Get(ctx, "o")
	require.Error(t, err)
	require.Error(t, b.Upload(ctx, "p", bytes.NewReader([]byte("y"))))
	_, err = b.PutIf(ctx, "p", []byte("y"), "")
	require.Error(t, err)
	require.False(t, b.IsConditionFailedErr(err))
	require.Error(t, b.ListSizes(ctx, "", func(bucket.Object) error { return nil }))
	ok, err := b.Exists(t.Context(), "p")
	require.NoError(t, err)
	require.False(t, ok)
}

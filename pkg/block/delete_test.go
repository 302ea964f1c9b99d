package block_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
)

var deleteNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// deleteBucket is a bucket whose clock stands at deleteNow.
func deleteBucket() *bucket.Memory {
	b := bucket.NewMemory()
	b.SetClock(func() time.Time { return deleteNow })
	return b
}

func request(selectors ...string) block.DeleteRequest {
	return block.DeleteRequest{Selectors: selectors, MinTime: 1000, MaxTime: 2000, By: "ann", Reason: "left"}
}

func create(t *testing.T, bkt block.Bucket, r block.DeleteRequest) *block.DeleteRequest {
	t.Helper()
	made, err := block.CreateDelete(t.Context(), bkt, r)
	require.NoError(t, err)
	return made
}

func TestDeleteRequestLives(t *testing.T) {
	bkt, ctx := deleteBucket(), t.Context()
	a := create(t, bkt, request(`up{job="a"}`, `{namespace=~"dev|test"}`))
	require.Equal(t, block.DeletePending, a.State)
	require.Equal(t, deleteNow, a.Created, "by the bucket's clock")
	require.Equal(t, ulid.Timestamp(deleteNow), a.ID.Time())

	got, err := block.GetDelete(ctx, bkt, a.ID)
	require.NoError(t, err)
	require.Equal(t, a, got)

	b := create(t, bkt, request(`down`))
	all, err := block.ListDeletes(ctx, bkt)
	require.NoError(t, err)
	require.ElementsMatch(t, []*block.DeleteRequest{a, b}, all)

	clean := ulid.MustNew(7, strings.NewReader(strings.Repeat("x", 16)))
	require.NoError(t, block.UpdateDelete(ctx, bkt, a.ID, func(r *block.DeleteRequest) error {
		r.Clean = append(r.Clean, clean)
		return nil
	}))
	got, err = block.GetDelete(ctx, bkt, a.ID)
	require.NoError(t, err)
	require.Equal(t, []ulid.ULID{clean}, got.Clean)

	cancelled, err := block.CancelDelete(ctx, bkt, a.ID)
	require.NoError(t, err)
	require.Equal(t, block.DeleteCancelled, cancelled.State)
	require.Equal(t, deleteNow, cancelled.Finished)
	again, err := block.CancelDelete(ctx, bkt, a.ID)
	require.NoError(t, err, "twice is harmless")
	require.Equal(t, cancelled, again)

	_, err = block.CancelDelete(ctx, bkt, clean)
	require.ErrorIs(t, err, block.ErrNoDelete)
	require.NoError(t, block.UpdateDelete(ctx, bkt, b.ID, func(r *block.DeleteRequest) error {
		r.State, r.Finished = block.DeleteDone, deleteNow
		return nil
	}))
	_, err = block.CancelDelete(ctx, bkt, b.ID)
	require.ErrorIs(t, err, block.ErrInvalidDelete)
	require.ErrorContains(t, err, "its samples are gone")
}

// counted counts the bytes of objects that were read under a condition.
type counted struct {
	block.Bucket
	bytes int
}

func (c *counted) GetIf(ctx context.Context, name, etag string) ([]byte, string, error) {
	body, newETag, err := c.Bucket.GetIf(ctx, name, etag)
	c.bytes += len(body)
	return body, newETag, err
}

// A request that is pending is asked for with each list, and comes when it has
// changed; one that is finished is not asked for.
func TestDeleteReader(t *testing.T) {
	bkt, ctx := &counted{Bucket: deleteBucket()}, t.Context()
	a := create(t, bkt, request("a"))
	var reader block.DeleteReader
	list := func(want *block.DeleteRequest) int {
		bkt.bytes = 0
		all, err := reader.List(ctx, bkt)
		require.NoError(t, err)
		require.Equal(t, []*block.DeleteRequest{want}, all)
		return bkt.bytes
	}
	require.Positive(t, list(a))
	require.Zero(t, list(a))
	a.Clean = []ulid.ULID{a.ID}
	require.NoError(t, block.UpdateDelete(ctx, bkt, a.ID, func(r *block.DeleteRequest) error {
		r.Clean = a.Clean
		return nil
	}))
	require.Positive(t, list(a))
	require.Zero(t, list(a))
	a, err := block.CancelDelete(ctx, bkt, a.ID)
	require.NoError(t, err)
	require.Positive(t, list(a))
	require.Zero(t, list(a))
	require.NoError(t, bkt.Delete(ctx, "firnline/deletes/"+a.ID.String()+".json"))
	all, err := reader.List(ctx, bkt)
	require.NoError(t, err)
	require.Empty(t, all)
}

func TestOldDeletesAreRemoved(t *testing.T) {
	bkt, ctx := deleteBucket(), t.Context()
	done, pending := create(t, bkt, request("a")), create(t, bkt, request("b"))
	_, err := block.CancelDelete(ctx, bkt, done.ID)
	require.NoError(t, err)
	var reader block.DeleteReader
	for _, days := range []time.Duration{364, 366} {
		all, err := reader.List(ctx, bkt)
		require.NoError(t, err)
		require.Len(t, all, 2)
		require.NoError(t, block.RemoveOldDeletes(ctx, bkt, all, deleteNow.Add(days*24*time.Hour)))
	}
	all, err := reader.List(ctx, bkt)
	require.NoError(t, err)
	require.Equal(t, []*block.DeleteRequest{pending}, all)
}

func TestCreateDeleteRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		request block.DeleteRequest
		want    string
	}{
		"no selector":      {request(), "no selector"},
		"no matcher":       {request(`{}`), "has no matcher"},
		"syntax":           {request(`up{`), `selector "up{"`},
		"not a selector":   {request(`rate(up[5m])`), "selector"},
		"every metric":     {request(`{__name__=~".+"}`), "matches nearly every series"},
		"any value":        {request(`{job!=""}`), "matches nearly every series"},
		"all but one":      {request(`{job!="a"}`), "matches nearly every series"},
		"one of two":       {request(`up`, `{job=~".*"}`), "matches nearly every series"},
		"upside down":      {block.DeleteRequest{Selectors: []string{"up"}, MinTime: 2, MaxTime: 1}, "before it begins"},
		"to come":          {block.DeleteRequest{Selectors: []string{"up"}, MinTime: deleteNow.UnixMilli() + 1, MaxTime: 1 << 60}, "to come"},
		"many selectors":   {request(strings.Fields(strings.Repeat("up ", 101))...), "101 selectors"},
		"long selector":    {request(`up{a="` + strings.Repeat("x", 17<<10) + `"}`), "bytes"},
		"long reason":      {block.DeleteRequest{Selectors: []string{"up"}, Reason: strings.Repeat("x", 2000)}, "reason of 2000 bytes"},
		"reason not UTF-8": {block.DeleteRequest{Selectors: []string{"up"}, Reason: "\xff"}, "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			bkt := deleteBucket()
			_, err := block.CreateDelete(t.Context(), bkt, tc.request)
			require.ErrorIs(t, err, block.ErrInvalidDelete)
			require.ErrorContains(t, err, tc.want)
			all, err := block.ListDeletes(t.Context(), bkt)
			require.NoError(t, err)
			require.Empty(t, all)
		})
	}
	everything := request(`{__name__=~".+"}`)
	everything.Everything = true
	create(t, deleteBucket(), everything)
}

func TestCreateDeleteEndsNow(t *testing.T) {
	r := request("up")
	r.MinTime, r.MaxTime = math.MinInt64, math.MaxInt64
	made := create(t, deleteBucket(), r)
	require.Equal(t, deleteNow.UnixMilli(), made.MaxTime)
	require.EqualValues(t, -62_135_596_800_000, made.MinTime, "the year 1")
}

func TestCreateDeleteTwice(t *testing.T) {
	bkt := deleteBucket()
	first := create(t, bkt, request("up"))
	retry := request("up")
	retry.ID = first.ID
	require.Equal(t, first, create(t, bkt, retry), "the answer of the first try was lost")
	other := request("down")
	other.ID = first.ID
	_, err := block.CreateDelete(t.Context(), bkt, other)
	require.ErrorIs(t, err, block.ErrInvalidDelete)
}

func TestDeletesAreBounded(t *testing.T) {
	bkt := deleteBucket()
	for i := range 1000 {
		id := ulid.MustNew(uint64(i), strings.NewReader(strings.Repeat("x", 16)))
		require.NoError(t, bkt.Upload(t.Context(), "firnline/deletes/"+id.String()+".json", strings.NewReader("{}")))
	}
	_, err := block.CreateDelete(t.Context(), bkt, request("up"))
	require.ErrorIs(t, err, block.ErrInvalidDelete)
	require.ErrorContains(t, err, "1000 requests")
}

// losing is a bucket in which somebody else changes a request right before our write.
type losing struct {
	*bucket.Memory
	times  int
	change func()
}

func (l *losing) PutIf(ctx context.Context, name string, body []byte, etag string) (string, error) {
	if l.times > 0 && etag != "" {
		l.times--
		l.change()
	}
	return l.Memory.PutIf(ctx, name, body, etag)
}

func TestUpdateDeleteLosesRaces(t *testing.T) {
	for _, times := range []int{1, 3, 1000} {
		bkt := &losing{Memory: deleteBucket(), times: times}
		r := create(t, bkt, request("up"))
		n := 0
		bkt.change = func() {
			n++
			require.NoError(t, block.UpdateDelete(t.Context(), bkt.Memory, r.ID, func(r *block.DeleteRequest) error {
				r.Reason = fmt.Sprint("changed ", n)
				return nil
			}))
		}
		err := block.UpdateDelete(t.Context(), bkt, r.ID, func(r *block.DeleteRequest) error {
			r.By = "bob"
			return nil
		})
		got, getErr := block.GetDelete(t.Context(), bkt, r.ID)
		require.NoError(t, getErr)
		require.Equal(t, fmt.Sprint("changed ", n), got.Reason, "nobody's change is lost")
		if times > 10 {
			require.Error(t, err, "tries are bounded")
			require.Equal(t, "ann", got.By)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, "bob", got.By)
	}
}

func TestUpdateDeleteRefuses(t *testing.T) {
	bkt := deleteBucket()
	r := create(t, bkt, request("up"))
	boom := errors.New("boom")
	require.ErrorIs(t, block.UpdateDelete(t.Context(), bkt, r.ID, func(*block.DeleteRequest) error { return boom }), boom)
	err := block.UpdateDelete(t.Context(), bkt, r.ID, func(r *block.DeleteRequest) error { r.Selectors = nil; return nil })
	require.ErrorIs(t, err, block.ErrInvalidDelete)
	got, err := block.GetDelete(t.Context(), bkt, r.ID)
	require.NoError(t, err)
	require.Equal(t, r, got)
}

func TestListDeletesWithHostileObjects(t *testing.T) {
	bkt := deleteBucket()
	good := create(t, bkt, request("up"))
	id := ulid.MustNew(5, strings.NewReader(strings.Repeat("x", 16)))
	put := func(name, body string) {
		require.NoError(t, bkt.Upload(t.Context(), "firnline/deletes/"+name, strings.NewReader(body)))
	}
	put("README", "not a request")
	put(strings.ToLower(id.String())+".json", "not its name")
	put("deeper/"+id.String()+".json", "not its place")
	for body, want := range map[string]error{
		`{"version":2}`:   block.ErrUnknownVersion,
		`{`:               block.ErrCorrupt,
		``:                block.ErrCorrupt,
		`null`:            block.ErrUnknownVersion,
		`{"version":"1"}`: block.ErrCorrupt,
		`{"version":1,"id":"` + good.ID.String() + `","selectors":["up"],"state":"pending"}`:                    block.ErrCorrupt,
		`{"version":1,"id":"` + id.String() + `","selectors":["up{"],"state":"pending"}`:                        block.ErrCorrupt,
		`{"version":1,"id":"` + id.String() + `","selectors":["up"],"state":"soon"}`:                            block.ErrCorrupt,
		`{"version":1,"id":"` + id.String() + `","selectors":["up"],"state":"pending","minTime":2,"maxTime":1}`: block.ErrCorrupt,
		strings.Repeat(" ", 9<<20): block.ErrCorrupt,
	} {
		put(id.String()+".json", body)
		all, err := block.ListDeletes(t.Context(), bkt)
		require.ErrorIs(t, err, want, "%.80s", body)
		require.ErrorContains(t, err, id.String())
		require.Equal(t, []*block.DeleteRequest{good}, all, "the others come all the same")
	}
}

func TestHider(t *testing.T) {
	mk := func(mint, maxt int64, selectors ...string) *block.DeleteRequest {
		return &block.DeleteRequest{Selectors: selectors, MinTime: mint, MaxTime: maxt}
	}
	h, err := block.NewHider(mk(10, 20, `up{cluster="a"}`, `{job="x"}`), mk(15, 40, `up`), mk(100, 110, `up{replica="1"}`))
	require.NoError(t, err)
	up := labels.FromStrings("__name__", "up", "cluster", "a", "replica", "1")
	for name, tc := range map[string]struct {
		h    *block.Hider
		lset labels.Labels
		want string
	}{
		"all":               {h, up, "[{10 40} {100 110}]"},
		"one":               {h, labels.FromStrings("__name__", "up"), "[{15 40}]"},
		"other":             {h, labels.FromStrings("job", "x"), "[{10 20}]"},
		"nothing":           {h, labels.FromStrings("job", "y"), "[]"},
		"in time":           {h.For(0, 12, labels.EmptyLabels()), up, "[{10 20}]"},
		"external decide":   {h.For(0, 50, labels.FromStrings("cluster", "a")), labels.FromStrings("__name__", "up"), "[{10 40}]"},
		"external exclude":  {h.For(0, 50, labels.FromStrings("cluster", "b")), up, "[{15 40}]"},
		"without a replica": {h.Without([]string{"replica"}), up, "[{10 40}]"},
		"none":              {nil, up, "[]"},
	} {
		require.Equal(t, tc.want, fmt.Sprint(tc.h.Intervals(tc.lset)), name)
	}
	require.Nil(t, h.For(41, 99, labels.EmptyLabels()), "nothing to look at is nil")
	require.Nil(t, h.For(0, 9, labels.EmptyLabels()))
	var none *block.Hider
	require.Nil(t, none.For(0, 9, up))
	require.Nil(t, none.Without([]string{"a"}))
	_, err = block.NewHider(mk(1, 2, "up{"))
	require.ErrorIs(t, err, block.ErrInvalidDelete)
	h, err = block.NewHider()
	require.NoError(t, err)
	require.Nil(t, h)
}

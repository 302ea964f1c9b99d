package block_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
)

var upSeries = labels.FromStrings("__name__", "up")

// watched is a watcher under test with all that can be seen of it.
type watched struct {
	*block.DeleteWatcher
	reg *prometheus.Registry
	log bytes.Buffer
}

func newWatched(bkt block.Bucket) *watched {
	w := &watched{reg: prometheus.NewRegistry()}
	cfg := block.DeleteWatchConfig{Interval: model.Duration(30 * time.Second)}
	w.DeleteWatcher = block.NewDeleteWatcher(cfg, bkt, slog.New(slog.NewTextHandler(&w.log, nil)), w.reg)
	return w
}

func (w *watched) hidden() string { return fmt.Sprint(w.Hider().Intervals(upSeries)) }

func TestDeletesAreHiddenWithinAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := newFaulty()
		w := newWatched(bkt)
		require.ErrorContains(t, w.Ready(), "looking for delete requests")
		require.Nil(t, w.Hider())
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go func() { _ = w.Run(ctx) }()
		synctest.Wait()
		require.NoError(t, w.Ready())

		time.Sleep(time.Second)
		r := create(t, bkt, block.DeleteRequest{Selectors: []string{"up"}, MinTime: 1000, MaxTime: 2000})
		time.Sleep(time.Minute)
		require.Equal(t, "[{1000 2000}]", w.hidden())

		_, err := block.CancelDelete(t.Context(), bkt, r.ID)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, "[]", w.hidden())
	})
}

func TestDeleteWatcherReadsOnlyWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := newFaulty()
		for range 5 {
			create(t, bkt, request("up"))
		}
		w := newWatched(bkt)
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go func() { _ = w.Run(ctx) }()
		time.Sleep(10 * time.Minute)
		require.Equal(t, "[{1000 2000}]", w.hidden())
		const reads = `# HELP firnline_delete_requests_reads_total Delete requests read from the bucket.
# TYPE firnline_delete_requests_reads_total counter
firnline_delete_requests_reads_total 10
`
		require.NoError(t, testutil.GatherAndCompare(w.reg, strings.NewReader(reads), "firnline_delete_requests_reads_total"),
			"each twice, since a second write could look like the first")
	})
}

// TestDeleteWatcherSeesTwoWritesInASecond: the second one has the same length
// and, by the second, the same time.
func TestDeleteWatcherSeesTwoWritesInASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := newFaulty()
		r := create(t, bkt, request("up"))
		w := newWatched(bkt)
		require.NoError(t, w.Look(t.Context()))
		require.NoError(t, block.UpdateDelete(t.Context(), bkt, r.ID, func(r *block.DeleteRequest) error {
			r.Selectors = []string{"xy"}
			return nil
		}))
		time.Sleep(30 * time.Second)
		require.NoError(t, w.Look(t.Context()))
		require.Equal(t, "[]", w.hidden())
	})
}

func TestDeleteWatcherKeepsTheLastGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := newFaulty()
		var away atomic.Bool
		bkt.fail = func(string, string) error {
			if away.Load() {
				return errors.New("bucket is away")
			}
			return nil
		}
		create(t, bkt, request("up"))
		w := newWatched(bkt)
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go func() { _ = w.Run(ctx) }()
		synctest.Wait()
		require.Equal(t, "[{1000 2000}]", w.hidden())
		time.Sleep(time.Second)
		away.Store(true)
		time.Sleep(5 * time.Minute)
		require.Equal(t, "[{1000 2000}]", w.hidden())
		require.NoError(t, w.Ready())
		cancel()
		synctest.Wait()
		require.Contains(t, w.log.String(), "bucket is away")
		require.Contains(t, w.log.String(), "age=5m0s")
	})
}

func TestDeleteWatcherNeverReadyWithoutAGoodLook(t *testing.T) {
	bkt := newFaulty()
	bkt.fail = func(string, string) error { return errors.New("denied") }
	w := newWatched(bkt)
	require.Error(t, w.Look(t.Context()))
	require.ErrorContains(t, w.Ready(), "denied")
}

// TestUnreadableDeletesShow: what can't be read is named by a metric and a line,
// once, holds up nothing, and what was known of it stays in force.
func TestUnreadableDeletesShow(t *testing.T) {
	bkt := newFaulty()
	r := create(t, bkt, request("up"))
	other := create(t, bkt, request("other"))
	w := newWatched(bkt)
	require.NoError(t, w.Look(t.Context()))
	object := "firnline/deletes/" + r.ID.String() + ".json"
	whole := bkt.Objects()[object]
	require.NoError(t, bkt.Upload(t.Context(), object, bytes.NewReader(whole[:len(whole)/2])))
	for range 3 {
		require.NoError(t, w.Look(t.Context()))
	}
	require.Equal(t, "[{1000 2000}]", w.hidden())
	require.Equal(t, 1, strings.Count(w.log.String(), "delete request can't be read"), "said once")
	require.Contains(t, w.log.String(), r.ID.String())
	require.NotContains(t, w.log.String(), other.ID.String())
	const want = `# HELP firnline_delete_requests_unreadable Delete requests that can't be read: what they ask for may show.
# TYPE firnline_delete_requests_unreadable gauge
firnline_delete_requests_unreadable %d
`
	require.NoError(t, testutil.GatherAndCompare(w.reg, strings.NewReader(fmt.Sprintf(want, 1)), "firnline_delete_requests_unreadable"))
	require.NoError(t, bkt.Upload(t.Context(), object, bytes.NewReader(whole)))
	require.NoError(t, w.Look(t.Context()))
	require.NoError(t, testutil.GatherAndCompare(w.reg, strings.NewReader(fmt.Sprintf(want, 0)), "firnline_delete_requests_unreadable"))
}

// RELIABILITY B3: a request that a listing lacks is not forgotten by that, and
// one that is gone only when it was so twice.
func TestDeleteWatcherDoubtsListings(t *testing.T) {
	bkt := newFaulty()
	r := create(t, bkt, request("up"))
	w := newWatched(bkt)
	require.NoError(t, w.Look(t.Context()))
	bkt.hide = func(string) bool { return true }
	for range 3 {
		require.NoError(t, w.Look(t.Context()))
		require.Equal(t, "[{1000 2000}]", w.hidden())
	}
	require.NoError(t, bkt.Delete(t.Context(), "firnline/deletes/"+r.ID.String()+".json"))
	require.NoError(t, w.Look(t.Context()))
	require.Equal(t, "[{1000 2000}]", w.hidden())
	require.NoError(t, w.Look(t.Context()))
	require.Equal(t, "[]", w.hidden())
}

func TestDoneDeletesStayHiddenForAWhile(t *testing.T) {
	bkt := newFaulty()
	now := time.Now()
	r := create(t, bkt, request("up"))
	require.NoError(t, block.UpdateDelete(t.Context(), bkt, r.ID, func(r *block.DeleteRequest) error {
		r.State, r.Finished = block.DeleteDone, now
		return nil
	}))
	w := newWatched(bkt)
	w.SetClock(func() time.Time { return now })
	require.NoError(t, w.Look(t.Context()))
	require.Equal(t, "[{1000 2000}]", w.hidden(), "a replaced block is served for a while")
	now = now.Add(31 * 24 * time.Hour)
	require.NoError(t, w.Look(t.Context()))
	require.Equal(t, "[]", w.hidden())
}

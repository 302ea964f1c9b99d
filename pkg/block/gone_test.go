package block_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
)

// probes are the requests for a block's meta.json by name.
func (f *fleet) probes(id ulid.ULID) (n int) {
	for _, r := range f.requests() {
		if r == "exists "+block.Name(id, block.MetaFilename) {
			n++
		}
	}
	return n
}

// RELIABILITY G1: a block that the manifest lists and somebody has removed is
// given up with the first pass after an object of it was missed, for one request;
// it is put right in the manifest by who publishes, and stays away until it is
// brought back.
func TestSuspectGone(t *testing.T) {
	f, c, r := newReadFleet(t, 20)
	id, there := testID(3), testID(4)
	f.remove(id)
	require.Contains(t, r.look().Metas, id, "nobody has missed it")

	for range 10 {
		r.Suspect(id, there, testID(100))
	}
	f.requests()
	f.check(r.look(), "given up at once, and what is there stays")
	require.Equal(t, 1, f.probes(id))
	require.Equal(t, 1.0, r.metric("firnline_fetcher_blocks_gone_total"))
	require.Equal(t, 1, strings.Count(r.logs.String(), id.String()))
	for range 3 {
		r.Suspect(id)
		f.check(r.look(), "though the manifest lists it")
		require.Zero(t, f.probes(id))
	}
	require.Contains(t, f.member("").look().Metas, id, "who only reads writes nothing")

	c.Suspect(id)
	f.check(c.work())
	f.check(f.member("").look(), "the manifest is put right")
	f.check(r.look())
	f.check(c.work())
	require.Equal(t, 1.0, c.metric("firnline_fetcher_blocks_gone_total"))

	f.put(id)
	f.clock.add(16 * time.Minute)
	f.check(c.work(), "brought back")
	f.check(r.look())
}

// A block that is brought back before the manifest has lost it is found again
// after the next comparison of the manifest with a listing.
func TestSuspectBroughtBack(t *testing.T) {
	f, c, r := newReadFleet(t, 20)
	id := testID(3)
	f.remove(id)
	r.Suspect(id)
	f.check(r.look())
	f.clock.add(16 * time.Minute)
	c.work()
	f.requests()
	f.check(r.look())
	require.Equal(t, 1, f.probes(id), "looked for once more")
	f.check(r.look())
	require.Zero(t, f.probes(id))
	f.put(id)
	f.clock.add(16 * time.Minute)
	f.check(c.work())
	f.check(r.look())
}

// RELIABILITY B3: more than may vanish at once are kept for --block-gone-delay,
// and a bucket that can't be asked says nothing.
func TestSuspectMany(t *testing.T) {
	f := newFleet(t)
	ids := f.ids(20)
	for _, id := range ids {
		f.put(id)
	}
	c, r := f.member("c"), f.member("")
	c.begin()
	f.check(r.look())

	f.setFail(func(point, object string) error {
		if strings.HasPrefix(point, "bucket/exists") {
			return errors.New("connection refused")
		}
		return nil
	})
	f.remove(ids[0])
	r.Suspect(ids[0])
	v, err := r.FetchAll(context.Background())
	require.ErrorContains(t, err, "connection refused")
	require.Contains(t, v.Metas, ids[0])
	f.setFail(nil)
	f.check(r.look(), "it is still a suspect")

	for _, id := range ids[1:8] {
		f.remove(id)
	}
	r.Suspect(ids[1:8]...)
	v, err = r.FetchAll(context.Background())
	require.ErrorIs(t, err, block.ErrListing)
	require.Len(t, v.Metas, 19)
	f.clock.add(4 * time.Minute)
	require.Len(t, r.look().Metas, 19)
	f.clock.add(time.Minute)
	f.check(r.look())
}

// RELIABILITY B3: a block that a listing lacks is given up when the delay is
// over, however often the manifest, which lists it, is looked at meanwhile.
func TestManifestListsWhatIsGone(t *testing.T) {
	f, c, r := newReadFleet(t, 20)
	id := testID(3)
	f.remove(id)
	for range 15 + 5 - 1 {
		f.clock.add(time.Minute)
		require.Contains(t, c.work().Metas, id)
	}
	f.clock.add(time.Minute)
	f.requests()
	f.check(c.work(), "five minutes after the listing that lacked it")
	require.Equal(t, 1, f.probes(id))
	f.check(f.member("").look(), "and the manifest lacks it from then on")
	require.Contains(t, r.look().Metas, id, "who knew it waits, too")
	f.clock.add(5 * time.Minute)
	f.check(r.look())
	f.check(c.work())
}

// RELIABILITY B3: while a listing lacks more than may vanish at once nothing is given up before its time, however
// few blocks each query misses: what a bucket that is empty for a while doesn't show would be forgotten bit by bit.
func TestSuspectsOfADoubtedListing(t *testing.T) {
	w := newWatch(t, nil)
	var ids []ulid.ULID
	for i := range 20 {
		ids = append(ids, w.put(i+1))
	}
	require.Len(t, w.fetch().Metas, 20)
	for _, id := range ids {
		w.remove(block.Name(id, block.MetaFilename))
	}
	for i := range ids {
		w.Suspect(ids[i])
		v, err := w.FetchAll(context.Background())
		require.ErrorIs(t, err, block.ErrListing)
		require.Len(t, v.Metas, 20, "after %d looks", i+1)
	}
}

// RELIABILITY B3: nor is a bucket forgotten bit by bit whose manifest lists blocks that are not there.
func TestSuspectsOneByOne(t *testing.T) {
	f := newFleet(t)
	ids := f.ids(20)
	for _, id := range ids {
		f.put(id)
	}
	c, r := f.member("c"), f.member("")
	c.begin()
	f.check(r.look())
	for _, id := range ids {
		f.remove(id)
	}
	for i, id := range ids {
		r.Suspect(id)
		v, err := r.FetchAll(context.Background())
		require.Len(t, v.Metas, max(20-i-1, 16))
		require.Equal(t, i >= 4, errors.Is(err, block.ErrListing), "look %d: %v", i, err)
	}
	f.clock.add(5 * time.Minute)
	f.check(r.look())
}

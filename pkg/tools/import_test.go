package tools_test

import (
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/tools"
)

// head is a TSDB whose samples are all in its head: floats and histograms each minute.
func head(t *testing.T, hours int64) (db *tsdb.DB, dir string) {
	t.Helper()
	dir = t.TempDir()
	opts := tsdb.DefaultOptions()
	opts.MinBlockDuration, opts.MaxBlockDuration = 24*hour, 24*hour
	db, err := tsdb.Open(dir, quiet, prometheus.NewRegistry(), opts, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	app := db.AppenderV2(t.Context())
	for at := int64(0); at < hours*hour; at += 60_000 {
		_, err := app.Append(0, labels.FromStrings("__name__", "f"), 0, at, float64(at), nil, nil, storage.AOptions{})
		require.NoError(t, err)
		_, err = app.Append(0, labels.FromStrings("__name__", "h"), 0, at, 0, blocktest.Histogram(at/60_000), nil, storage.AOptions{})
		require.NoError(t, err)
	}
	require.NoError(t, app.Commit())
	return db, dir
}

// readBack uploads the blocks in a folder and counts what they have.
func readBack(t *testing.T, dir string) (blocks int, samples map[string]int) {
	t.Helper()
	b := bucket.NewMemory()
	u := tools.Upload{Bucket: b, Labels: labels.FromStrings("from", "test"), Log: quiet}
	_, err := u.Dir(t.Context(), dir)
	require.NoError(t, err)
	v, err := look(t).In(t.Context(), b, quiet)
	require.NoError(t, err)
	samples = map[string]int{}
	for _, m := range v.Metas {
		require.NoError(t, block.VerifyRemote(t.Context(), b, m))
		for lset, all := range samplesOf(t, b, m) {
			samples[lset] += len(all)
		}
	}
	return len(v.Metas), samples
}

func TestRemoteRead(t *testing.T) {
	db, _ := head(t, 5)
	h := remote.NewReadHandler(quiet, prometheus.NewRegistry(), db, func() config.Config { return config.Config{} }, 1e6, 10, 1<<20)
	srv := httptest.NewServer(h)
	defer srv.Close()
	dir := t.TempDir()
	told := 0
	r := tools.RemoteRead{
		URL: srv.URL, Timeout: time.Minute, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", "f|h")},
		MinTime: hour, MaxTime: 5*hour - 1, Log: quiet, Told: func(int, int, int64) { told++ },
	}
	got, err := r.Blocks(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, tools.Imported{Blocks: 3, Samples: 2 * 4 * 60}, got)
	require.Equal(t, 3, told)
	blocks, samples := readBack(t, dir)
	require.Equal(t, 3, blocks)
	require.Equal(t, map[string]int{`{__name__="f"}`: 240, `{__name__="h"}`: 240}, samples)
	srv.Close()
	_, err = r.Blocks(t.Context(), t.TempDir())
	require.ErrorContains(t, err, srv.URL)
}

func TestHeadBlock(t *testing.T) {
	_, data := head(t, 2) // and still in use
	before, err := os.ReadDir(data)
	require.NoError(t, err)
	dir := t.TempDir()
	got, err := tools.HeadBlock(data, dir, quiet)
	require.NoError(t, err)
	require.Equal(t, tools.Imported{Blocks: 1, Samples: 240}, got)
	_, samples := readBack(t, dir)
	require.Equal(t, map[string]int{`{__name__="f"}`: 120, `{__name__="h"}`: 120}, samples)
	after, err := os.ReadDir(data)
	require.NoError(t, err)
	require.Equal(t, len(before), len(after), "the folder is only read")
	_, err = tools.HeadBlock(t.TempDir(), t.TempDir(), quiet)
	require.NoError(t, err, "a folder without a log has no head")
}

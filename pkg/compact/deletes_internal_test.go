package compact

import (
	"io"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/input"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// A request for the first samples of a series finds them in a downsampled chunk
// of Thanos', whose time begins only at the end of its first window.
func TestSearchInFirstWindow(t *testing.T) {
	end := block.Resolution5m - 1
	for name, of := range map[string]struct {
		maxt  int64
		found bool
	}{"in the window": {end - 1, true}, "before it": {-1, false}} {
		r, err := newRemoval(&plan.Job{
			Labels: labels.FromStrings("cluster", "a"), Resolution: block.Resolution5m, MinTime: 0, MaxTime: 10 * block.Resolution5m,
			Deletes: []*block.DeleteRequest{{Selectors: []string{"up"}, MinTime: -1000, MaxTime: of.maxt}},
		})
		require.NoError(t, err)
		series := []*input.Series{{Chunks: []input.Chunk{{MinTime: end, MaxTime: 3*block.Resolution5m - 1}}}}
		l, err := r.search(func() (labels.Labels, *input.Series, error) {
			if len(series) == 0 {
				return labels.EmptyLabels(), nil, io.EOF
			}
			s := series[0]
			series = series[1:]
			return labels.FromStrings("__name__", "up"), s, nil
		})
		require.NoError(t, err)
		require.Equal(t, of.found, l.found, name)
	}
}

// What one shard is done with says nothing of another one.
func TestBothAreDone(t *testing.T) {
	ext := block.Extension{Done: []int64{block.Resolution5m, block.Resolution1h}}
	both(&ext, block.Extension{Done: []int64{block.Resolution5m}})
	require.Equal(t, []int64{block.Resolution5m}, ext.Done)
}

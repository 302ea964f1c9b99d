package refuse_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// RELIABILITY I6: what one counts further is not seen by another.
func TestTallyClone(t *testing.T) {
	old := func() *refuse.Error { return refuse.Errorf(refuse.SampleTooOld, "a", "series up: too old") }
	var first refuse.Tally
	first.Add(refuse.SampleTooOld, 1, old)
	second := first.Clone()
	second.Add(refuse.SampleTooOld, 2, old)
	first.Add(refuse.Unavailable, 4, func() *refuse.Error { return refuse.Errorf(refuse.Unavailable, "a", "no quorum") })
	require.Equal(t, 5, first.Samples())
	require.Equal(t, 3, second.Samples())
	require.Equal(t, refuse.Unavailable, refuse.ReasonOf(first.Err()))
	require.Equal(t, refuse.SampleTooOld, refuse.ReasonOf(second.Err()))
	require.NoError(t, new(refuse.Tally).Clone().Err())
}

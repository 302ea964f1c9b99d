package heads

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block/notes"
	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

// traced is a write of one sample with an exemplar, both at ms after start.
func traced(ms int64, trace string) *batch.Write {
	w := write("t", 1, one("up", float64(ms), 1))
	w.Batch.Exemplars = []exemplar.Exemplar{{Labels: labels.FromStrings("trace", trace), Value: 1, Ts: start + ms, HasTs: true}}
	w.Batch.Series[0].Exemplars = batch.Span{To: 1}
	return w
}

// TestNotes: exemplars and metadata are shipped beside the blocks of their time,
// over a restart, whether or not exemplars are kept in memory; one that is too
// long is not.
func TestNotes(t *testing.T) {
	for name, inMemory := range map[string]int{"kept in memory too": 1000, "kept for blocks alone": 0} {
		t.Run(name, func(t *testing.T) {
			r, bkt := shipRig(t, func(c *Config, _ *Parts) { c.MaxExemplars = inMemory })
			w := traced(0, "x")
			w.Batch.Families = []batch.Family{{Name: "up"}}
			w.Batch.Families[0].Type, w.Batch.Families[0].Help = "gauge", "whether it is up"
			r.put(w)
			r.put(traced(1000, strings.Repeat("y", 130)))
			r.restart()
			r.put(traced(3*hour, "z"))
			require.NoError(t, r.FlushAll(t.Context()))
			byTime := map[int64]string{}
			for _, m := range metas(t, bkt) {
				n, err := notes.Read(t.Context(), bkt, m.ULID)
				require.NoError(t, err)
				require.Equal(t, []notes.Family{{Name: "up", Type: "gauge", Help: "whether it is up"}}, n.Families)
				require.Len(t, n.Series, 1)
				require.Equal(t, labels.FromStrings("__name__", "up"), n.Series[0].Labels, "without external labels")
				require.Len(t, n.Series[0].Exemplars, 1)
				byTime[n.Series[0].Exemplars[0].Ts-start] = n.Series[0].Exemplars[0].Labels.Get("trace")
			}
			require.Equal(t, map[int64]string{0: "x", 3 * hour: "z"}, byTime)
		})
	}
}

// TestNoNotesWithoutBucket: there is nothing to keep exemplars for.
func TestNoNotesWithoutBucket(t *testing.T) {
	r := newRig(t)
	r.put(traced(0, "x"))
	h := head1(t, r)
	defer h.release()
	require.Nil(t, h.notes)
	require.NoDirExists(t, h.dir+"/"+notesDirname)
}

package plan_test

import (
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// Which results have the segments of their inputs: the blocks are given in hours.
func TestCopies(t *testing.T) {
	const kib, mib = 1 << 10, 1 << 20
	for _, c := range []struct {
		name       string
		from, to   int64 // of all blocks
		each       int64 // of one
		chunkBytes int64
		runs       int // of each, as recorded
		copyBytes  int64
		change     func(*sim)
		want       int // runs of the result; 0: it is merged
	}{
		{name: "to 8h", to: 8, each: 2, chunkBytes: 256 * kib, copyBytes: 64 * mib, want: 4},
		{name: "to 8h, small", to: 8, each: 2, chunkBytes: 255 * kib, copyBytes: 64 * mib},
		{name: "to 8h, small but larger than is asked for", to: 8, each: 2, chunkBytes: kib, copyBytes: kib, want: 4},
		{name: "to 8h, without copying", to: 8, each: 2, chunkBytes: 256 * kib},
		{name: "to 14d", to: 336, each: 48, chunkBytes: 64 * mib, copyBytes: 64 * mib, want: 7},
		{name: "to 14d, small", to: 336, each: 48, chunkBytes: 63 * mib, copyBytes: 64 * mib},
		{name: "to 14d, of a group that began in it", from: 240, to: 336, each: 48, chunkBytes: 63 * mib, copyBytes: 64 * mib},
		{name: "to 14d, of blocks in two runs", to: 336, each: 48, chunkBytes: 128 * mib, runs: 2, copyBytes: 64 * mib, want: 14},
		{name: "to 14d, of blocks in many runs", to: 336, each: 48, chunkBytes: 1024 * mib, runs: 3, copyBytes: 64 * mib},
		{name: "many to 2d", to: 48, each: 2, chunkBytes: mib, copyBytes: 64 * mib},
		{name: "overlapping", to: 8, each: 2, chunkBytes: mib, copyBytes: 64 * mib,
			change: func(s *sim) { s.upload(1*hour, 3*hour, mib, "cluster", "eu") }},
		{name: "with 5m data to come", to: 336, each: 48, chunkBytes: 64 * mib, copyBytes: 64 * mib,
			change: func(s *sim) { s.cfg.Downsample = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := defaultConfig()
			cfg.Downsample, cfg.CopyBytes = false, c.copyBytes
			s := newSim(t, cfg)
			for h := c.from; h < c.to; h += c.each {
				m := s.upload(h*hour, (h+c.each)*hour, c.chunkBytes/10, "cluster", "eu")
				m.Thanos.Files[0].SizeBytes = c.chunkBytes
				if c.runs > 0 {
					require.NoError(t, m.SetExtension(block.Extension{Runs: c.runs}))
				}
			}
			if c.change != nil {
				c.change(s)
			}
			s.now = (c.to + 24) * hour
			jobs := s.plan().Jobs
			require.Len(t, jobs, 1)
			require.Equal(t, c.want > 0, jobs[0].Around != ulid.ULID{})
			if c.want > 0 {
				require.Equal(t, c.want, runsOf(t, jobs[0]))
			}
		})
	}
}

func runsOf(t *testing.T, j plan.Job) int {
	around, err := j.AsAround()
	require.NoError(t, err)
	require.Equal(t, j.Around, around.Outputs[0].Meta.ULID)
	ext, ours, err := around.Outputs[0].Meta.Extension()
	require.NoError(t, err)
	require.True(t, ours)
	return ext.Runs
}

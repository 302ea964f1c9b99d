package plan_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
)

// TestSplitGetsCoarserLater begins a split without downsampling and goes on with
// it. The first shard lacks 5m data: nothing may say that it is there.
func TestSplitGetsCoarserLater(t *testing.T) {
	cfg := defaultConfig()
	cfg.MaxIndexBytes, cfg.Downsample = 150, false
	s := newSim(t, cfg)
	for h := int64(0); h < 48; h += 12 {
		s.now = (h + 12) * hour
		s.upload(h*hour, (h+12)*hour, 100, "cluster", "eu")
	}
	s.now = 3 * day
	require.True(t, s.do(s.plan().Jobs[0], 1<<20))
	s.cfg.Downsample = true
	for range 20 {
		p := s.plan()
		for _, j := range p.Jobs {
			s.do(j, 1<<20)
		}
		s.collect(p.Garbage)
	}
	cells := map[int64]cells{}
	for id, m := range s.in.Metas {
		if s.in.Marks[id].Deletion == nil {
			for _, c := range s.content[id] {
				cells[m.Resolution()] |= c
			}
		}
	}
	require.Equal(t, allCells, cells[block.ResolutionRaw])
	require.Equal(t, allCells, cells[block.Resolution5m])
}

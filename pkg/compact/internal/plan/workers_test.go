package plan_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// TestWorkersShareABacklog lets one worker, and then several, clear the same
// backlog. Several do the same jobs, come to the same blocks, and are the faster
// for it. (The gate for two is 0.6 of the time.)
func TestWorkersShareABacklog(t *testing.T) {
	for _, tc := range []struct {
		name    string
		from    int64 // day of the first block
		days    int64
		groups  int
		workers int
		most    float64 // of the time of one
	}{
		{"a window for each of two", 0, 28, 1, 2, 0.51},
		{"windows that are not all whole", 5, 32, 1, 2, 0.6},
		{"two windows, and a part that is for one", 0, 32, 1, 2, 0.52},
		{"one window for all", 0, 14, 1, 2, 0.6},
		{"as many groups as workers", 3, 20, 2, 2, 0.6},
		{"more of both", 2, 56, 2, 5, 0.3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			clear := func(workers int) *shift {
				cfg := defaultConfig()
				cfg.MaxInputs = 64
				s := newSim(t, cfg)
				for s.now = tc.from * day; s.now < (tc.from+tc.days)*day; s.now += 2 * hour {
					for g := range tc.groups {
						s.upload(s.now, s.now+2*hour, 100, "cluster", fmt.Sprint(g))
					}
				}
				s.now += day
				sh := &shift{sim: s, at: make([]int64, workers), job: make([]*plan.Job, workers)}
				sh.clear()
				return sh
			}
			one, several := clear(1), clear(tc.workers)
			require.Equal(t, one.jobs, several.jobs)
			require.Equal(t, one.content, several.content)
			share := float64(slices.Max(several.at)) / float64(slices.Max(one.at))
			require.LessOrEqual(t, share, tc.most)
			t.Logf("%d jobs in %.3f of the time", several.jobs, share)
		})
	}
}

// shift is a number of workers on one bucket. A job takes as long as it has bytes
// to read, longer where it decodes them for a coarser tier.
// What it has done shows when it ends; that it runs, at once.
type shift struct {
	*sim
	at   []int64     // by worker: when its job ends
	job  []*plan.Job // nil: none
	jobs int         // that were done
}

// clear goes on until there is nothing to do for anybody.
func (s *shift) clear() {
	for {
		for worker := range s.job {
			if s.job[worker] == nil {
				s.begin(worker)
			}
		}
		next := -1
		for worker, j := range s.job {
			if j != nil && (next < 0 || s.at[worker] < s.at[next]) {
				next = worker
			}
		}
		if next < 0 {
			require.Empty(s.t, s.plan().Jobs)
			s.check()
			return
		}
		require.True(s.t, s.do(*s.job[next], 1<<20), s.job[next].Why)
		s.jobs++
		s.job[next] = nil
		for worker := range s.job { // who found nothing looks again now
			if s.job[worker] == nil {
				s.at[worker] = s.at[next]
			}
		}
	}
}

// begin gives a worker the first job that it can have.
func (s *shift) begin(worker int) {
	p := s.plan()
	atWork := func(area string) bool {
		return slices.ContainsFunc(s.job, func(j *plan.Job) bool { return j != nil && j.Area == area })
	}
	for j := range p.Apart(atWork) {
		if !slices.ContainsFunc(s.job, func(o *plan.Job) bool { return o != nil && o.Key == j.Key }) {
			s.job[worker], s.at[worker] = j, s.at[worker]+duration(j)
			return
		}
	}
}

// duration is how long a job takes, by what was measured: to decode raw data for
// the coarser tiers takes seven times as long as to copy its chunks, to decode 5m
// data, of which there is less, twice as long as to copy the raw data.
func duration(j *plan.Job) int64 {
	switch {
	case len(j.Outputs) < 2:
		return j.InputBytes
	case j.Resolution == block.ResolutionRaw:
		return 7 * j.InputBytes
	}
	return 2 * j.InputBytes
}

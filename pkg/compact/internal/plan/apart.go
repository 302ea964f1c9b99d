package plan

import (
	"fmt"
	"iter"
)

// area names what jobs build up together: in the end the blocks of the largest
// range of one lane, at all resolutions.
func (p *planner) area(l *lane, w window) string {
	if n := len(p.cfg.Ranges); n > 0 {
		w = around(w, p.cfg.Ranges[n-1])
	}
	return fmt.Sprintf("%d/%s/%s", l.tier.family.labels.Hash(), l.name(), w.key())
}

// Apart yields the jobs in the order in which a worker tries them: that of the
// plan, but those in areas where somebody else is at work come last. The largest
// job of an area needs the results of all others and can't be shared: of workers
// that clear one area together all but one have to leave it in the end.
//
// atWork is asked of an area when its job's turn comes, since to try a job is also
// to find out who does it.
func (p *Plan) Apart(atWork func(area string) bool) iter.Seq[*Job] {
	return func(yield func(*Job) bool) {
		var later []*Job
		for i := range p.Jobs {
			j := &p.Jobs[i]
			if atWork(j.Area) {
				later = append(later, j)
			} else if !yield(j) {
				return
			}
		}
		for _, j := range later {
			if !yield(j) {
				return
			}
		}
	}
}

package api

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/storeapi"
)

// targetsData is what targets answers with. What the StoreAPI does not carry is
// read from the discovered labels, where Prometheus puts it.
type targetsData struct {
	Active        []activeTarget  `json:"activeTargets"`
	Dropped       []droppedTarget `json:"droppedTargets"`
	DroppedCounts map[string]int  `json:"droppedTargetCounts"`
}

type activeTarget struct {
	storeapi.ActiveTarget
	ScrapeInterval string `json:"scrapeInterval"`
	ScrapeTimeout  string `json:"scrapeTimeout"`
}

type droppedTarget struct {
	DiscoveredLabels labels.Labels `json:"discoveredLabels"`
	ScrapePool       string        `json:"scrapePool"`
}

// targets lists scrape targets.
func (a *API) targets(r *http.Request) (answer, error) {
	state, err := stateParam(r)
	if err != nil {
		return answer{}, err
	}
	partial, err := boolParam(r, "partial_response", a.cfg.TargetPartial)
	if err != nil {
		return answer{}, err
	}
	var (
		all  storeapi.Targets
		warn []string
	)
	if a.parts.Targets != nil {
		if all, warn, err = a.parts.Targets.Targets(r.Context(), state, partial); err != nil {
			return answer{}, err
		}
	}
	return answer{data: chooseTargets(all, state, r.Form.Get("scrapePool")), warn: warn}, nil
}

func stateParam(r *http.Request) (storeapi.TargetState, error) {
	switch strings.ToLower(r.Form.Get("state")) {
	case "", "any":
		return storeapi.TargetsAny, nil
	case "active":
		return storeapi.TargetsActive, nil
	case "dropped":
		return storeapi.TargetsDropped, nil
	default:
		return 0, badParam("state", errors.New("must be one of any, active, dropped"))
	}
}

// chooseTargets keeps the targets of a state and, where it is named, of a scrape pool, by pool.
func chooseTargets(all storeapi.Targets, state storeapi.TargetState, pool string) targetsData {
	out := targetsData{Active: []activeTarget{}, Dropped: []droppedTarget{}}
	if state != storeapi.TargetsDropped {
		for _, t := range all.Active {
			if pool == "" || t.ScrapePool == pool {
				out.Active = append(out.Active, activeTarget{
					t, t.DiscoveredLabels.Get(model.ScrapeIntervalLabel), t.DiscoveredLabels.Get(model.ScrapeTimeoutLabel),
				})
			}
		}
	}
	if state != storeapi.TargetsActive {
		out.DroppedCounts = map[string]int{}
		for _, t := range all.Dropped {
			of := t.DiscoveredLabels.Get(model.JobLabel)
			out.DroppedCounts[of]++
			if pool == "" || of == pool {
				out.Dropped = append(out.Dropped, droppedTarget{t.DiscoveredLabels, of})
			}
		}
	}
	slices.SortStableFunc(out.Active, func(x, y activeTarget) int { return cmp.Compare(x.ScrapePool, y.ScrapePool) })
	slices.SortStableFunc(out.Dropped, func(x, y droppedTarget) int { return cmp.Compare(x.ScrapePool, y.ScrapePool) })
	return out
}

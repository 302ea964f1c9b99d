package api

import (
	"net/http"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/storage"
)

// checkEvery is after how many series a loop looks whether the client is still there.
const checkEvery = 128

// series lists the labels of series.
func (a *API) series(r *http.Request) (answer, error) {
	if len(r.Form["match[]"]) == 0 {
		return answer{}, bad("no match[] parameter provided")
	}
	sel, err := a.selectionParams(r)
	if err != nil {
		return answer{}, err
	}
	if sel.sets, err = a.matchParam(r); err != nil {
		return answer{}, badParam("match[]", err)
	}
	opts, err := a.dataOptions(r, 0)
	if err != nil {
		return answer{}, err
	}
	q, err := a.querier(sel, opts)
	if err != nil {
		return answer{}, err
	}
	ans, err := collect(r, selectSeries(r, q, sel), sel.limit)
	ans.close = func() { q.Close() } // labels may be memory of the querier
	return ans, err
}

// selectSeries unites the series of all matcher sets. The token "series" tells
// the querier that no samples are wanted.
func selectSeries(r *http.Request, q storage.Querier, sel selection) storage.SeriesSet {
	hints := &storage.SelectHints{
		Start: timestamp.FromTime(sel.start),
		End:   timestamp.FromTime(sel.end),
		Func:  "series",
		Limit: oneMore(sel.limit),
	}
	if len(sel.sets) == 1 {
		return q.Select(r.Context(), false, hints, sel.sets[0]...)
	}
	sets := make([]storage.SeriesSet, 0, len(sel.sets))
	for _, set := range sel.sets {
		sets = append(sets, q.Select(r.Context(), true, hints, set...)) // a merge needs them sorted
	}
	return storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
}

func collect(r *http.Request, set storage.SeriesSet, limit int) (answer, error) {
	var (
		found []labels.Labels
		more  bool
	)
	for n := 1; set.Next(); n++ {
		if n%checkEvery == 0 && r.Context().Err() != nil {
			return answer{}, r.Context().Err()
		}
		if more = limit > 0 && len(found) == limit; more {
			break
		}
		found = append(found, set.At().Labels())
	}
	if err := set.Err(); err != nil {
		return answer{}, err
	}
	notes := set.Warnings()
	if more {
		truncated(&notes)
	}
	return answer{
		encode: func(s *stream) error {
			return s.list(len(found), func(i int) error { s.labels(found[i]); return nil })
		},
		notes: notes,
	}, nil
}

package api

import (
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/firnline/firnline/pkg/storeapi"
)

// metadata tells type, help and unit of metrics.
func (a *API) metadata(r *http.Request) (answer, error) {
	limit, err := metadataLimit(r, "limit")
	if err != nil {
		return answer{}, err
	}
	perMetric, err := metadataLimit(r, "limit_per_metric")
	if err != nil {
		return answer{}, err
	}
	partial, err := boolParam(r, "partial_response", a.cfg.MetadataPartial)
	if err != nil {
		return answer{}, err
	}
	var (
		all  map[string][]storeapi.Metadata
		warn []string
	)
	if a.parts.Metadata != nil {
		all, warn, err = a.parts.Metadata.Metadata(r.Context(), r.Form.Get("metric"), limit, partial)
		if err != nil {
			return answer{}, err
		}
	}
	return answer{data: cutMetadata(all, limit, perMetric), warn: warn}, nil
}

// metadataLimit reads a limit of metadata, whose default of -1 is none; 0 means 0.
func metadataLimit(r *http.Request, name string) (int, error) {
	s := r.Form.Get(name)
	if s == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, bad("%s must be a number", name)
	}
	return n, nil
}

// cutMetadata keeps the first metrics by name, and the first entries of each.
func cutMetadata(all map[string][]storeapi.Metadata, limit, perMetric int) map[string][]storeapi.Metadata {
	out := make(map[string][]storeapi.Metadata, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if limit >= 0 && len(out) >= limit {
			break
		}
		entries := all[name]
		if perMetric > 0 && len(entries) > perMetric {
			entries = entries[:perMetric]
		}
		if entries == nil {
			entries = []storeapi.Metadata{}
		}
		out[name] = entries
	}
	return out
}

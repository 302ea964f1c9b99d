package api

import (
	"maps"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/storeapi"
)

// promVersion is the version of Prometheus whose API and PromQL this is. Clients,
// Grafana among them, choose by it what they ask for.
const promVersion = "3.16.0"

// Status are the facts about the process that the API shows. Nil functions show nothing.
type Status struct {
	Build BuildInfo
	// Flags returns each flag's value. Those that hold secrets must be masked by whoever gives this.
	Flags func() map[string]string
	// Config returns the configuration as YAML, without secrets.
	Config func() string
	// Reload tells whether the last reload worked, and when it was.
	Reload func() (ok bool, at time.Time)
}

// BuildInfo says what was built from what.
type BuildInfo struct {
	Version, Revision, Branch, BuildUser, BuildDate, GoVersion string
}

// StoreStatus is an endpoint as the querier sees it.
type StoreStatus struct {
	Name      string          `json:"name"` // its address
	LastCheck time.Time       `json:"lastCheck"`
	LastError *string         `json:"lastError"` // nil: none
	LabelSets []labels.Labels `json:"labelSets"`
	MinTime   int64           `json:"minTime"` // ms
	MaxTime   int64           `json:"maxTime"` // ms
}

// stores lists the endpoints by component.
func (a *API) stores(*http.Request) (answer, error) {
	out := map[string][]StoreStatus{}
	if a.parts.Stores != nil {
		for component, list := range a.parts.Stores() {
			for _, st := range list {
				if st.LabelSets == nil {
					st.LabelSets = []labels.Labels{}
				}
				out[component] = append(out[component], st)
			}
		}
	}
	return answer{data: out}, nil
}

// buildInfo presents the version of Prometheus that we are equal to: Grafana
// enables what it knows of that version. It must not have the field features, by
// which Grafana tells Mimir and would look for a ruler to write to.
func (a *API) buildInfo(*http.Request) (answer, error) {
	b := a.parts.Status.Build
	return answer{data: struct {
		Version            string `json:"version"`
		Revision           string `json:"revision"`
		Branch             string `json:"branch"`
		BuildUser          string `json:"buildUser"`
		BuildDate          string `json:"buildDate"`
		GoVersion          string `json:"goVersion"`
		Application        string `json:"application"`
		ApplicationVersion string `json:"applicationVersion"`
	}{promVersion, b.Revision, b.Branch, b.BuildUser, b.BuildDate, b.GoVersion, "Firnline", b.Version}}, nil
}

// runtimeInfo tells of the process.
func (a *API) runtimeInfo(*http.Request) (answer, error) {
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "<error retrieving current working directory>"
	}
	host, err := os.Hostname()
	if err != nil {
		host = "<error retrieving hostname>"
	}
	reloadOK, reloaded := true, a.started
	if a.parts.Status.Reload != nil {
		reloadOK, reloaded = a.parts.Status.Reload()
	}
	return answer{data: struct {
		StartTime           time.Time `json:"startTime"`
		CWD                 string    `json:"CWD"`
		Hostname            string    `json:"hostname"`
		ServerTime          time.Time `json:"serverTime"`
		ReloadConfigSuccess bool      `json:"reloadConfigSuccess"`
		LastConfigTime      time.Time `json:"lastConfigTime"`
		CorruptionCount     int64     `json:"corruptionCount"`
		GoroutineCount      int       `json:"goroutineCount"`
		GOMAXPROCS          int       `json:"GOMAXPROCS"`
		GOMEMLIMIT          int64     `json:"GOMEMLIMIT"`
		GOGC                string    `json:"GOGC"`
		GODEBUG             string    `json:"GODEBUG"`
		StorageRetention    string    `json:"storageRetention"`
	}{
		a.started.UTC(), cwd, host, a.now().UTC(), reloadOK, reloaded.UTC(), 0, runtime.NumGoroutine(),
		runtime.GOMAXPROCS(0), debug.SetMemoryLimit(-1), os.Getenv("GOGC"), os.Getenv("GODEBUG"), "",
	}}, nil
}

// flags shows the flags.
func (a *API) flags(*http.Request) (answer, error) {
	flags := map[string]string{}
	if a.parts.Status.Flags != nil {
		flags = a.parts.Status.Flags()
	}
	return answer{data: flags}, nil
}

// config shows the configuration.
func (a *API) config(*http.Request) (answer, error) {
	yaml := ""
	if a.parts.Status.Config != nil {
		yaml = a.parts.Status.Config()
	}
	return answer{data: map[string]string{"yaml": yaml}}, nil
}

// maxTSDBLimit is the longest list of cardinality statistics, as in Prometheus.
const maxTSDBLimit = 10_000

// tsdbStatus tells the cardinality statistics of all heads as if they were one.
func (a *API) tsdbStatus(r *http.Request) (answer, error) {
	limit := 10
	if s := r.Form.Get("limit"); s != "" {
		var err error
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 {
			return answer{}, bad("limit must be a positive number")
		}
		if limit > maxTSDBLimit {
			return answer{}, bad("limit must not exceed %d", maxTSDBLimit)
		}
	}
	partial, err := boolParam(r, "partial_response", a.cfg.StatusPartial)
	if err != nil {
		return answer{}, err
	}
	var (
		byTenant map[string]storeapi.TSDBStats
		warn     []string
	)
	if a.parts.TSDB != nil {
		if byTenant, warn, err = a.parts.TSDB.TSDBStats(r.Context(), limit, partial); err != nil {
			return answer{}, err
		}
	}
	return answer{data: sumStats(byTenant, limit), warn: warn}, nil
}

// sumStats adds up the statistics of several heads: counts are added by name,
// the range of time spans all, and each list is cut at limit.
func sumStats(by map[string]storeapi.TSDBStats, limit int) storeapi.TSDBStats {
	var (
		out   storeapi.TSDBStats
		first = true
		lists [4]map[string]uint64
	)
	for i := range lists {
		lists[i] = map[string]uint64{}
	}
	for _, tenant := range slices.Sorted(maps.Keys(by)) {
		st := by[tenant]
		h := st.HeadStats
		if !first {
			h.MinTime, h.MaxTime = min(h.MinTime, out.HeadStats.MinTime), max(h.MaxTime, out.HeadStats.MaxTime)
		}
		first = false
		h.NumSeries += out.HeadStats.NumSeries
		h.NumLabelPairs += out.HeadStats.NumLabelPairs
		h.ChunkCount += out.HeadStats.ChunkCount
		out.HeadStats = h
		for i, list := range [][]storeapi.Stat{
			st.SeriesCountByMetricName, st.LabelValueCountByLabelName, st.MemoryInBytesByLabelName, st.SeriesCountByLabelValuePair,
		} {
			for _, s := range list {
				lists[i][s.Name] += s.Value
			}
		}
	}
	out.SeriesCountByMetricName = largest(lists[0], limit)
	out.LabelValueCountByLabelName = largest(lists[1], limit)
	out.MemoryInBytesByLabelName = largest(lists[2], limit)
	out.SeriesCountByLabelValuePair = largest(lists[3], limit)
	return out
}

// largest returns the entries with the highest counts, highest first, then by name.
func largest(counts map[string]uint64, limit int) []storeapi.Stat {
	out := make([]storeapi.Stat, 0, len(counts))
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, storeapi.Stat{Name: name, Value: counts[name]})
	}
	slices.SortStableFunc(out, func(x, y storeapi.Stat) int {
		switch {
		case x.Value > y.Value:
			return -1
		case x.Value < y.Value:
			return 1
		default:
			return 0
		}
	})
	return out[:min(limit, len(out))]
}

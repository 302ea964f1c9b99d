package ingest

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/firnline/firnline/pkg/ingest/internal/forward"
	"github.com/firnline/firnline/pkg/ingest/internal/ha"
	"github.com/firnline/firnline/pkg/ingest/internal/intake"
	"github.com/firnline/firnline/pkg/ingest/internal/ring"
	"github.com/firnline/firnline/pkg/tenant"
)

// registerInsight adds what people, tools and queriers ask of this process.
func (in *Ingester) registerInsight(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/ingest/ring", func(w http.ResponseWriter, _ *http.Request) { writeData(w, in.ring.Status()) })
	mux.HandleFunc("GET /api/v1/ingest/endpoints", in.endpoints)
	mux.HandleFunc("GET /api/v1/ingest/ha", in.scoped(in.pairs))
	mux.HandleFunc("GET /api/v1/ingest/forward", in.scoped(in.forwarding))
	mux.HandleFunc("GET /api/v1/ingest/tenants", in.scoped(in.activity))
	for _, name := range []string{"/ring", "/memberlist"} { // Mimir's
		mux.Handle("GET "+name, http.RedirectHandler("/api/v1/ingest/ring", http.StatusFound))
	}
	if in.owned != nil {
		mux.HandleFunc("GET /api/v1/status/tsdb", in.scoped(in.tsdbStatus))
		in.registerCardinality(mux)
	}
	if in.cfg.AdminAPI {
		safe := http.NewCrossOriginProtection()
		mux.Handle("POST /api/v1/ingest/flush", safe.Handler(http.HandlerFunc(in.flush)))
		mux.Handle("POST /api/v1/ingest/forget", safe.Handler(http.HandlerFunc(in.forget)))
	}
}

// writeData answers in the envelope of Prometheus' API.
func writeData(w http.ResponseWriter, data any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": data}) // the client is gone otherwise
}

// writeError answers in the envelope of Prometheus' API.
func writeError(w http.ResponseWriter, code int, kind string, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"status": "error", "errorType": kind, "error": err.Error()})
}

// endpoints lists the nodes to be asked for what is not shipped yet, in the form
// of Prometheus' HTTP service discovery.
func (in *Ingester) endpoints(w http.ResponseWriter, _ *http.Request) {
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	out := []group{}
	for _, i := range in.ring.Instances() {
		out = append(out, group{[]string{i.Addr}, map[string]string{"instance_id": i.ID, "zone": i.Zone}})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out)
}

// limitOf is the parameter limit, at most 10,000.
func limitOf(r *http.Request, def int) int {
	n, err := strconv.Atoi(r.FormValue("limit"))
	if err != nil || n < 1 {
		return def
	}
	return min(n, 10_000)
}

// scope is whom a question is about: one tenant, or all.
type scope struct {
	all    bool
	tenant tenant.ID
}

// scoped answers about the tenant that asks, or about all to an operator who says
// all_tenants=true. An error of the answer is one that passes.
func (in *Ingester) scoped(answer func(*http.Request, scope) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		of := scope{all: r.FormValue("all_tenants") == "true"}
		if of.all && !in.peers.mayAskForAll(r) {
			writeError(w, http.StatusForbidden, "forbidden", errNoPeer)
			return
		}
		var err error
		if !of.all {
			of.tenant, err = in.cfg.Tenant.OfRequest(r)
		}
		if err != nil {
			writeError(w, http.StatusBadRequest, "bad_data", err)
			return
		}
		data, err := answer(r, of)
		if err != nil {
			writeError(w, http.StatusServiceUnavailable, "unavailable", err)
			return
		}
		writeData(w, data)
	}
}

// activity tells how much tenants send.
func (in *Ingester) activity(r *http.Request, of scope) (any, error) {
	all := in.path.intake.Activity(limitOf(r, 10))
	if !of.all {
		maps.DeleteFunc(all, func(id tenant.ID, _ *intake.Activity) bool { return id != of.tenant })
	}
	return all, nil
}

// pairs tells which senders of pairs are taken.
func (in *Ingester) pairs(_ *http.Request, of scope) (any, error) {
	return slices.DeleteFunc(in.tracker.Status(), func(s ha.Status) bool { return !of.all && s.Tenant != of.tenant }), nil
}

// forwarding tells how endpoints stand. One that others send to as well is the operator's alone to
// look at: its queue and its errors speak of them.
func (in *Ingester) forwarding(_ *http.Request, of scope) (any, error) {
	return slices.DeleteFunc(in.path.forwarder.Status(), func(s forward.Status) bool {
		return !of.all && !slices.Equal(s.Tenants, []tenant.ID{of.tenant})
	}), nil
}

// tsdbStatus answers as Thanos' receive: statistics of heads.
func (in *Ingester) tsdbStatus(r *http.Request, of scope) (any, error) {
	ctx := r.Context()
	if !of.all {
		ctx = tenant.NewContext(ctx, of.tenant)
	}
	stats, _, err := in.owned.Services().Status.TSDBStats(ctx, limitOf(r, 10), false)
	if of.all || err != nil {
		return stats, err
	}
	return stats[string(of.tenant)], nil
}

// flush cuts a tenant's head, or all of them, into blocks and ships these.
func (in *Ingester) flush(w http.ResponseWriter, r *http.Request) {
	if in.owned == nil {
		writeError(w, http.StatusNotFound, "not_found", errRouter)
		return
	}
	in.log.Info("flush asked for", "tenant", r.FormValue("tenant"), "remote", r.RemoteAddr)
	do := in.owned.FlushAll
	if name := r.FormValue("tenant"); name != "" {
		id, err := tenant.Parse(name)
		if err != nil {
			writeError(w, http.StatusBadRequest, "bad_data", err)
			return
		}
		do = func(ctx context.Context) error { return in.owned.Flush(ctx, id) }
	}
	if err := do(r.Context()); err != nil {
		writeError(w, http.StatusServiceUnavailable, "unavailable", err)
		return
	}
	writeData(w, "flushed")
}

// forget takes a dead node out of the ring.
func (in *Ingester) forget(w http.ResponseWriter, r *http.Request) {
	g, ok := in.ring.(*ring.Gossip)
	if !ok {
		writeError(w, http.StatusNotFound, "not_found", errStatic)
		return
	}
	in.log.Info("forgetting a node asked for", "node", r.FormValue("instance"), "remote", r.RemoteAddr)
	if err := g.Forget(r.Context(), r.FormValue("instance")); err != nil {
		writeError(w, http.StatusBadRequest, "bad_data", err)
		return
	}
	writeData(w, "forgotten")
}

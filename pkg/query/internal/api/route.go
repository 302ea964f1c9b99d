package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// alias is where Mimir serves the same API, so that its data sources keep working.
const alias = "/prometheus"

// route is one path below /api/v1 and the methods that it takes.
type route struct {
	path   string
	post   bool // POST beside GET
	handle handlerFunc
}

func (a *API) table() []route {
	return []route{
		{"/query", true, a.query},
		{"/query_range", true, a.queryRange},
		{"/query_exemplars", true, a.queryExemplars},
		{"/format_query", true, a.formatQuery},
		{"/parse_query", true, a.parseQuery},
		{"/series", true, a.series},
		{"/labels", true, a.labelNames},
		{"/label/{name}/values", false, a.labelValues},
		{"/metadata", false, a.metadata},
		{"/rules", false, a.rules},
		{"/alerts", false, a.alerts},
		{"/targets", false, a.targets},
		{"/stores", false, a.stores},
		{"/status/buildinfo", false, a.buildInfo},
		{"/status/runtimeinfo", false, a.runtimeInfo},
		{"/status/flags", false, a.flags},
		{"/status/config", false, a.config},
		{"/status/tsdb", false, a.tsdbStatus},
	}
}

// routes puts all paths on one mux, below the prefix and below the alias.
func (a *API) routes(read http.Handler) http.Handler {
	mux := http.NewServeMux()
	prefix := a.cfg.prefix()
	bases := []string{prefix}
	if prefix != alias {
		bases = append(bases, alias)
	}
	read = a.metrics.instrument("/read", read)
	for _, base := range bases {
		v1 := base + "/api/v1"
		for _, rt := range a.table() {
			h := a.wrap(rt.path, rt.handle)
			mux.Handle("GET "+v1+rt.path, h)
			if rt.post {
				mux.Handle("POST "+v1+rt.path, h)
			}
		}
		mux.Handle("POST "+v1+"/read", read)
	}
	mux.HandleFunc("GET "+prefix+"/{$}", a.index)
	if prefix != "" {
		mux.Handle("GET /{$}", http.RedirectHandler(a.cfg.outside()+"/", http.StatusFound))
		mux.Handle("GET "+prefix, http.RedirectHandler(a.cfg.outside()+"/", http.StatusFound))
	}
	return a.cors(preflight(bases, mux))
}

// preflight answers OPTIONS for everything below /api/v1, which the mux could
// only do at the price of calling all other methods there known.
func preflight(bases []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions && slices.ContainsFunc(bases, func(base string) bool {
			return strings.HasPrefix(r.URL.Path, base+"/api/v1/")
		}) {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// index is a plain page that lists the API. Its links are relative, so that
// they are right behind any proxy. It runs no script.
func (a *API) index(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	var b strings.Builder
	b.WriteString("<!DOCTYPE html><html lang=\"en\"><title>Firnline querier</title><h1>Firnline querier</h1>" +
		"<p>Add this address to Grafana as a Prometheus data source. The API:</p><ul>")
	for _, rt := range a.table() {
		if strings.Contains(rt.path, "{") {
			fmt.Fprintf(&b, "<li>api/v1%s</li>", rt.path)
			continue
		}
		fmt.Fprintf(&b, `<li><a href="api/v1%s">api/v1%s</a></li>`, rt.path, rt.path)
	}
	b.WriteString("</ul></html>\n")
	_, _ = w.Write([]byte(b.String())) // the client has left, or it has not
}

// cors lets pages of any origin read the API, which asks for no cookie and so gives away nothing to them.
func (a *API) cors(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := w.Header()
		out.Add("Vary", "Origin") // even without CORS: caches must not mix the two
		out.Set("X-Content-Type-Options", "nosniff")
		if !a.cfg.DisableCORS && r.Header.Get("Origin") != "" {
			out.Set("Access-Control-Allow-Origin", "*")
			out.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
			out.Set("Access-Control-Allow-Headers", "Accept, Authorization, Content-Type, Origin")
			out.Set("Access-Control-Expose-Headers", "Date")
		}
		h.ServeHTTP(w, r)
	})
}

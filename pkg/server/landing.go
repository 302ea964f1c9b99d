package server

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"strings"
)

// Page is the page at / of a component that has no user interface.
type Page struct {
	Title, About, Version string
	Routes                []Route // beside those that every component has
}

// Route is one that a page tells of.
type Route struct {
	Path  string // with a method before it if that is not GET: "POST /api/v1/write"
	About string
}

// link tells whether a browser can follow the route as it is.
func (r Route) link() bool { return strings.HasPrefix(r.Path, "/") && !strings.Contains(r.Path, "{") }

// builtinRoutes are those of handleBuiltin that people look at.
var builtinRoutes = []Route{
	{"/metrics", "metrics"},
	{"/-/ready", "whether it can work, or what it waits for"},
	{"/-/healthy", "whether it is alive"},
	{"/debug/pprof/", "profiles"},
}

// landing has relative links, so that they are right behind a proxy that takes a
// prefix away. (exporter-toolkit's page, which has none, escapes nothing either.)
var landing = template.Must(template.New("landing").Funcs(template.FuncMap{
	"link":     Route.link,
	"relative": func(r Route) string { return "." + r.Path },
}).Parse(`<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{{.Title}}</title>
<h1>{{.Title}}</h1>
<p>{{.About}}</p>
<p>Version: {{.Version}}</p>
<ul>
{{- range .Routes}}
<li>{{if link .}}<a href="{{relative .}}">{{.Path}}</a>{{else}}{{.Path}}{{end}}: {{.About}}</li>
{{- end}}
</ul>
</html>
`))

// Landing serves a page at /, and at no path below.
func (s *Server) Landing(p Page) error {
	p.Routes = append(append([]Route{}, p.Routes...), builtinRoutes...)
	var page bytes.Buffer
	if err := landing.Execute(&page, p); err != nil {
		return fmt.Errorf("page at /: %w", err)
	}
	s.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'") // it runs nothing
		_, _ = w.Write(page.Bytes())                                                   // the client may have left
	})
	return nil
}

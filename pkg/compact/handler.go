package compact

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// Handler answers below /api/v1/compact/:
//
//	GET status  what is done and known, as JSON (Status)
//	GET plan    what would be done and why, as text
func (c *Compactor) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/compact/status", c.serveStatus)
	mux.HandleFunc("GET /api/v1/compact/plan", c.servePlan)
	return mux
}

func (c *Compactor) serveStatus(w http.ResponseWriter, _ *http.Request) {
	body, err := json.Marshal(map[string]any{"status": "success", "data": c.Status()})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(body, '\n')) // the client may have left
}

func (c *Compactor) servePlan(w http.ResponseWriter, _ *http.Request) {
	p := c.plan()
	if p == nil {
		http.Error(w, fmt.Sprintf("there is no plan yet: %v", c.Ready()), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	fmt.Fprint(w, plan.Format(p.Plan))
}

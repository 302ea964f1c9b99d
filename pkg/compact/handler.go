package compact

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/firnline/firnline/pkg/block"
)

// Handler answers below /api/v1/:
//
//	GET compact/status  what is done and known, as JSON (Status)
//	GET compact/plan    what would be done and why, as text
//
// and what deleteAPI does.
func (c *Compactor) Handler() *http.ServeMux {
	mux := http.NewServeMux()
	deletes := newDeleteAPI(c.bkt, c.cfg.AdminAPI, c.liveBlocks, c.log)
	for _, path := range deletePaths() {
		mux.Handle(path, deletes)
	}
	mux.HandleFunc("GET /api/v1/compact/status", c.serveStatus)
	mux.HandleFunc("GET /api/v1/compact/plan", c.servePlan)
	return mux
}

// liveBlocks are the blocks of the last look that answers come from.
func (c *Compactor) liveBlocks(context.Context) ([]*block.Meta, error) {
	s := c.view.get()
	if s == nil {
		return nil, &apiProblem{http.StatusServiceUnavailable, "unavailable", c.Ready()}
	}
	var out []*block.Meta
	for id, m := range s.Metas {
		if s.Marks[id].Deletion == nil {
			out = append(out, m)
		}
	}
	return out, nil
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
	p, err := c.plan()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if p == nil {
		http.Error(w, fmt.Sprintf("there is no plan yet: %v", c.Ready()), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	fmt.Fprint(w, newPlanView(&p.Plan, p.snap.marks(), viewRows))
}

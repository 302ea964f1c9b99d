package compact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block"
)

// Paths of the API for deleting series.
const (
	pathDelete         = "/api/v1/delete_series"
	pathDeleteAdmin    = "/api/v1/admin/tsdb/delete_series" // Prometheus'
	pathDeleteRequests = "/api/v1/delete_requests"
)

// deletePaths are the patterns below which newDeleteAPI answers.
func deletePaths() []string {
	return []string{pathDelete, pathDeleteAdmin, pathDeleteRequests, pathDeleteRequests + "/"}
}

const maxDeleteBody = 1 << 20

// deleteAPI lets an operator ask for series to be deleted:
//
//	POST delete_series                match[]=…, start, end, reason, everything, dry_run
//	POST admin/tsdb/delete_series     the same; 204 without a body, as Prometheus
//	GET  delete_requests              all of them, the newest last
//	POST delete_requests/<id>/cancel
//
// Answers and errors have the form of Prometheus' API. What changes something is
// refused unless it is enabled, and when a page of another origin asks.
type deleteAPI struct {
	bkt     block.Bucket
	enabled bool
	blocks  func(context.Context) ([]*block.Meta, error)
	log     *slog.Logger
	dryRuns chan struct{} // one at a time: each reads many indexes
}

// newDeleteAPI makes the handler. blocks lists the blocks that a dry run looks into.
func newDeleteAPI(bkt block.Bucket, enabled bool, blocks func(context.Context) ([]*block.Meta, error), log *slog.Logger) http.Handler {
	a := &deleteAPI{bkt: bkt, enabled: enabled, blocks: blocks, log: log, dryRuns: make(chan struct{}, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc(pathDelete, a.changing(func(w http.ResponseWriter, r *http.Request) error { return a.create(w, r, false) }))
	mux.HandleFunc(pathDeleteAdmin, a.changing(func(w http.ResponseWriter, r *http.Request) error { return a.create(w, r, true) }))
	mux.HandleFunc(pathDeleteRequests+"/{id}/cancel", a.changing(a.cancel))
	mux.HandleFunc(pathDeleteRequests, a.list)
	mux.HandleFunc(pathDeleteRequests+"/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, &apiProblem{http.StatusNotFound, "not_found", fmt.Errorf("there is nothing at %s", r.URL.Path)})
	})
	return mux
}

// apiProblem is an error with what Prometheus' API calls it.
type apiProblem struct {
	code int
	kind string
	error
}

// Unwrap returns the error itself.
func (p *apiProblem) Unwrap() error { return p.error }

func badRequest(format string, args ...any) error {
	return &apiProblem{http.StatusBadRequest, "bad_data", fmt.Errorf(format, args...)}
}

// problemOf gives an error of the bucket its code.
func problemOf(err error) *apiProblem {
	var p *apiProblem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, block.ErrNoDelete):
		return &apiProblem{http.StatusNotFound, "not_found", err}
	case errors.Is(err, block.ErrInvalidDelete):
		return &apiProblem{http.StatusBadRequest, "bad_data", err}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &apiProblem{http.StatusServiceUnavailable, "timeout", err}
	}
	return &apiProblem{http.StatusInternalServerError, "internal", err}
}

// changing guards what changes something.
func (a *deleteAPI) changing(do func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	guard := http.NewCrossOriginProtection()
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			notAllowed(w, r, http.MethodPost)
			return
		}
		if err := guard.Check(r); err != nil {
			a.log.WarnContext(r.Context(), "request from a page of another origin refused", "path", r.URL.Path, "origin", clipped(r.Header.Get("Origin")), "by", requester(r))
			refuse(w, &apiProblem{http.StatusForbidden, "forbidden", errors.New("a page of another origin can't change anything here")})
			return
		}
		if !a.enabled {
			refuse(w, &apiProblem{http.StatusForbidden, "forbidden", errors.New("changes over HTTP are off (--web.enable-admin-api)")})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxDeleteBody)
		if err := r.ParseForm(); err != nil {
			refuse(w, problemOf(badRequest("parameters: %w", err)))
			return
		}
		if err := do(w, r); err != nil {
			p := problemOf(err)
			if p.code >= http.StatusInternalServerError {
				a.log.ErrorContext(r.Context(), "delete request failed", "path", r.URL.Path, "by", requester(r), "err", err)
			}
			refuse(w, p)
		}
	}
}

// create takes a request, or tells what it would hit. quiet answers as Prometheus does.
func (a *deleteAPI) create(w http.ResponseWriter, r *http.Request, quiet bool) error {
	request, err := requestFrom(r)
	if err != nil {
		return err
	}
	dry, err := truth(r, "dry_run")
	if err != nil {
		return err
	}
	if dry {
		return a.dryRun(w, r, request)
	}
	made, err := block.CreateDelete(r.Context(), a.bkt, *request)
	if err != nil {
		return err
	}
	a.log.InfoContext(r.Context(), "series are to be deleted", "request", made.ID, "selectors", made.Selectors,
		"from", minute(made.MinTime), "to", minute(made.MaxTime), "reason", made.Reason, "by", made.By)
	if quiet {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	answer(w, viewOf(made), nil)
	return nil
}

func (a *deleteAPI) dryRun(w http.ResponseWriter, r *http.Request, request *block.DeleteRequest) error {
	select {
	case a.dryRuns <- struct{}{}:
		defer func() { <-a.dryRuns }()
	default:
		w.Header().Set("Retry-After", "10")
		return &apiProblem{http.StatusServiceUnavailable, "unavailable", errors.New("another dry run is under way; ask again when it is over")}
	}
	metas, err := a.blocks(r.Context())
	if err != nil {
		return err
	}
	hits, err := DryRunDelete(r.Context(), a.bkt, metas, request)
	if err != nil {
		return err
	}
	answer(w, hits, nil)
	return nil
}

// requestFrom reads the parameters of a new request.
func requestFrom(r *http.Request) (*block.DeleteRequest, error) {
	request := &block.DeleteRequest{Selectors: r.Form["match[]"], Reason: r.Form.Get("reason"), By: requester(r)}
	if len(request.Selectors) == 0 {
		return nil, badRequest("no match[] parameter: give a selector of the series, such as {namespace=\"dev\"}")
	}
	var err error
	if request.MinTime, err = timeFrom(r, "start", math.MinInt64); err != nil {
		return nil, err
	}
	if request.MaxTime, err = timeFrom(r, "end", math.MaxInt64); err != nil { // ends now
		return nil, err
	}
	if request.Everything, err = truth(r, "everything"); err != nil {
		return nil, err
	}
	return request, request.Check()
}

// timeFrom reads seconds since the epoch or RFC 3339, as ms.
func timeFrom(r *http.Request, name string, absent int64) (int64, error) {
	s := r.Form.Get(name)
	if s == "" {
		return absent, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UnixMilli(), nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if ms := f * 1000; err == nil && ms >= -1<<62 && ms <= 1<<62 {
		return int64(math.Round(ms)), nil
	}
	return 0, badRequest("invalid parameter %q: want a time, as seconds since 1970 or RFC 3339, got %q", name, clipped(s))
}

func truth(r *http.Request, name string) (bool, error) {
	s := r.Form.Get(name)
	if s == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, badRequest("invalid parameter %q: want true or false, got %q", name, clipped(s))
	}
	return b, nil
}

// requester tells who asks: the user who has logged in, and from where.
func requester(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	name := ""
	if user, _, ok := r.BasicAuth(); ok {
		name = user
	} else if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		name = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	if name == "" {
		return clipped(host)
	}
	return clipped(name) + "@" + clipped(host)
}

// clipped shortens what a client has sent, and makes it UTF-8.
func clipped(s string) string { return strings.ToValidUTF8(s[:min(len(s), 100)], "?") }

// cancel ends a pending request.
func (a *deleteAPI) cancel(w http.ResponseWriter, r *http.Request) error {
	id, err := ulid.ParseStrict(r.PathValue("id"))
	if err != nil {
		return badRequest("%q is no id of a delete request", clipped(r.PathValue("id")))
	}
	request, err := block.CancelDelete(r.Context(), a.bkt, id)
	if errors.Is(err, block.ErrInvalidDelete) {
		return &apiProblem{http.StatusConflict, "execution", err}
	}
	if err != nil {
		return err
	}
	a.log.InfoContext(r.Context(), "delete request is cancelled", "request", id, "by", requester(r))
	answer(w, viewOf(request), nil)
	return nil
}

// list answers with all requests. Those that can't be read are told as warnings.
func (a *deleteAPI) list(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		notAllowed(w, r, http.MethodGet)
		return
	}
	all, err := block.ListDeletes(r.Context(), a.bkt)
	var warnings []string
	switch {
	case errors.Is(err, block.ErrCorrupt), errors.Is(err, block.ErrUnknownVersion):
		warnings = strings.Split(err.Error(), "\n")
	case err != nil:
		a.log.ErrorContext(r.Context(), "list of delete requests failed", "err", err)
		refuse(w, problemOf(err))
		return
	}
	views := make([]deleteView, len(all))
	for i, d := range all {
		views[i] = viewOf(d)
	}
	answer(w, views, warnings)
}

// deleteView is a request as the API shows it.
type deleteView struct {
	ID       ulid.ULID         `json:"id"`
	State    block.DeleteState `json:"state"`
	Match    []string          `json:"match"`
	Start    int64             `json:"start"` // ms
	End      int64             `json:"end"`   // ms
	Reason   string            `json:"reason"`
	By       string            `json:"by"`
	Created  time.Time         `json:"created"`
	Finished *time.Time        `json:"finished"` // null while pending
}

func viewOf(r *block.DeleteRequest) deleteView {
	v := deleteView{ID: r.ID, State: r.State, Match: slices.Clone(r.Selectors), Start: r.MinTime, End: r.MaxTime,
		Reason: r.Reason, By: r.By, Created: r.Created}
	if r.State != block.DeletePending {
		v.Finished = &r.Finished
	}
	return v
}

func notAllowed(w http.ResponseWriter, r *http.Request, allowed string) {
	w.Header().Set("Allow", allowed)
	refuse(w, &apiProblem{http.StatusMethodNotAllowed, "bad_data", fmt.Errorf("%s is not allowed here: use %s", clipped(r.Method), allowed)})
}

func answer(w http.ResponseWriter, data any, warnings []string) {
	reply(w, http.StatusOK, map[string]any{"status": "success", "data": data}, warnings)
}

func refuse(w http.ResponseWriter, p *apiProblem) {
	reply(w, p.code, map[string]any{"status": "error", "errorType": p.kind, "error": p.Error()}, nil)
}

// reply writes JSON in which nothing can be taken for HTML.
func reply(w http.ResponseWriter, code int, body map[string]any, warnings []string) {
	if len(warnings) > 0 {
		body["warnings"] = warnings
	}
	data, err := json.Marshal(body)
	if err != nil {
		code, data = http.StatusInternalServerError, []byte(`{"status":"error","errorType":"internal","error":"the answer can't be written as JSON"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(data, '\n')) // the client may have left
}

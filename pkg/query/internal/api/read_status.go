package api

import (
	"context"
	"net/http"
)

// readFailure carries the problem of a store from where a remote read meets it
// to where its status is written: the library calls everything 500, after which
// Prometheus would ask again for what can't be had.
type readFailure struct{ problem *problem }

type readFailureKey struct{}

// noteFailure keeps the first problem of the request in ctx.
func noteFailure(ctx context.Context, err error) {
	if f, ok := ctx.Value(readFailureKey{}).(*readFailure); ok && err != nil && f.problem == nil {
		f.problem = problemOf(ctx, err)
	}
}

// withReadStatus gives remote reads that fail the status of their problem.
func withReadStatus(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := &readFailure{}
		h.ServeHTTP(&readWriter{w, f}, r.WithContext(context.WithValue(r.Context(), readFailureKey{}, f)))
	})
}

type readWriter struct {
	http.ResponseWriter
	failure *readFailure
}

// WriteHeader replaces an internal error by what is known better.
func (w *readWriter) WriteHeader(code int) {
	if code == http.StatusInternalServerError && w.failure.problem != nil {
		code = w.failure.problem.code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Flush sends on what has been written; streamed reads need it.
func (w *readWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

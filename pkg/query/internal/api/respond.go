package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/util/annotations"
)

// answer is what a handler returns. Without data and encode it is 204.
type answer struct {
	data   any                        // marshalled by encoding/json
	encode func(stream *stream) error // or written piece by piece
	notes  annotations.Annotations    // warnings and infos
	warn   []string                   // warnings of services
	query  string                     // for positions in notes
	close  func()                     // gives back what data holds
}

// maxNotes bounds the PromQL annotations shown of each kind, as Prometheus does.
const maxNotes = 10

// respond writes a successful answer. With warnings it is not to be cached:
// what is missing now may be there later.
func (a *API) respond(w http.ResponseWriter, r *http.Request, ans answer) {
	if ans.data == nil && ans.encode == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	warnings, infos := ans.annotations()
	if len(warnings) > 0 {
		w.Header().Set("Cache-Control", "no-store")
		a.metrics.partial.Inc()
	}
	encode := ans.encode
	if encode == nil {
		b, err := json.Marshal(ans.data)
		if err != nil {
			a.refuse(w, r, &problem{internal, fmt.Errorf("encode answer: %w", err)})
			return
		}
		encode = func(s *stream) error { s.WriteRaw(string(b)); return s.Flush() }
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	if err := writeAnswer(newStream(w), encode, warnings, infos); err != nil {
		// The status is out: a body cut short is the only way left to tell the client.
		if r.Context().Err() == nil {
			a.log.Warn("write answer", "path", r.URL.Path, "err", err)
		}
		panic(http.ErrAbortHandler)
	}
}

func writeAnswer(s *stream, data func(*stream) error, warnings, infos []string) error {
	s.WriteRaw(`{"status":"success","data":`)
	if err := data(s); err != nil {
		return err
	}
	for _, list := range []struct {
		name  string
		texts []string
	}{{"warnings", warnings}, {"infos", infos}} {
		if len(list.texts) > 0 {
			s.WriteRaw(`,"` + list.name + `":`)
			if err := s.texts(list.texts); err != nil {
				return err
			}
		}
	}
	s.WriteRaw("}")
	return s.Flush()
}

// refuse writes a problem as Prometheus does, on one line.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(r.Context(), err)
	if p.problemType == internal {
		a.log.Error("request failed", "path", r.URL.Path, "err", p.err)
	}
	body := jsoniter.ConfigCompatibleWithStandardLibrary.BorrowStream(nil)
	defer jsoniter.ConfigCompatibleWithStandardLibrary.ReturnStream(body)
	body.WriteRaw(`{"status":"error","errorType":`)
	body.WriteString(p.name)
	body.WriteRaw(`,"error":`)
	body.WriteStringWithHTMLEscaped(p.Error())
	body.WriteRaw(`}`)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.code)
	_, _ = w.Write(body.Buffer()) // who has left needs no answer
}

// annotations renders warnings and infos in a fixed order. What stores say comes
// first and whole, since each may tell of missing data; what PromQL says is cut at maxNotes.
func (ans answer) annotations() (warnings, infos []string) {
	stores := slices.Clone(ans.warn)
	promql := annotations.New()
	for _, err := range ans.notes {
		if errors.Is(err, annotations.PromQLWarning) || errors.Is(err, annotations.PromQLInfo) {
			promql.Add(err)
			continue
		}
		stores = append(stores, err.Error())
	}
	slices.Sort(stores)
	warnings, infos = promql.AsStrings(ans.query, 0, 0)
	return append(slices.Compact(stores), cut(warnings, "warning")...), cut(infos, "info")
}

// cut sorts texts and keeps the first maxNotes, telling how many it left out.
func cut(texts []string, kind string) []string {
	slices.Sort(texts)
	if len(texts) <= maxNotes {
		return texts
	}
	return append(texts[:maxNotes], fmt.Sprintf("%d more %s annotations omitted", len(texts)-maxNotes, kind))
}

// truncated adds the warning of an answer that was cut at the request's limit.
func truncated(notes *annotations.Annotations) {
	notes.Add(errors.New("results truncated due to limit"))
}

package compact

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
)

// apiUnderTest is the API over a bucket, with its log.
type apiUnderTest struct {
	*testing.T
	http.Handler
	bkt *bucket.Memory
	log bytes.Buffer
}

func newAPI(t *testing.T, enabled bool, metas ...*block.Meta) *apiUnderTest {
	a := &apiUnderTest{T: t, bkt: bucket.NewMemory()}
	a.Handler = newDeleteAPI(a.bkt, enabled, func(context.Context) ([]*block.Meta, error) { return metas, nil }, slog.New(slog.NewTextHandler(&a.log, nil)))
	return a
}

type apiAnswer struct {
	code      int
	header    http.Header
	body      string
	Status    string          `json:"status"`
	Data      json.RawMessage `json:"data"`
	ErrorType string          `json:"errorType"`
	Error     string          `json:"error"`
	Warnings  []string        `json:"warnings"`
}

func (a *apiUnderTest) do(r *http.Request) apiAnswer {
	a.Helper()
	rec := httptest.NewRecorder()
	a.ServeHTTP(rec, r)
	out := apiAnswer{code: rec.Code, header: rec.Header(), body: rec.Body.String()}
	if rec.Code != http.StatusNoContent {
		require.Equal(a, "application/json", rec.Header().Get("Content-Type"))
		require.Equal(a, "nosniff", rec.Header().Get("X-Content-Type-Options"))
		require.NoError(a, json.Unmarshal(rec.Body.Bytes(), &out), rec.Body.String())
	}
	return out
}

func post(path string, params ...string) *http.Request {
	v := url.Values{}
	for i := 0; i < len(params); i += 2 {
		v.Add(params[i], params[i+1])
	}
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(v.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("ann", "secret")
	return r
}

func (a *apiUnderTest) requests() []*block.DeleteRequest {
	all, err := block.ListDeletes(a.Context(), a.bkt)
	require.NoError(a, err)
	return all
}

func TestDeleteAPILives(t *testing.T) {
	a := newAPI(t, true)
	made := a.do(post(pathDelete, "match[]", `up{job="a"}`, "match[]", "down", "start", "1000.5", "end", "1970-01-01T01:00:00Z", "reason", "left"))
	require.Equal(t, 200, made.code, made.body)
	all := a.requests()
	require.Len(t, all, 1)
	require.Equal(t, []string{`up{job="a"}`, "down"}, all[0].Selectors)
	require.EqualValues(t, 1_000_500, all[0].MinTime)
	require.EqualValues(t, 3_600_000, all[0].MaxTime)
	require.Equal(t, "ann@192.0.2.1", all[0].By)
	require.Contains(t, a.log.String(), all[0].ID.String())
	require.Contains(t, a.log.String(), "by=ann@192.0.2.1")
	require.NotContains(t, a.log.String(), "secret")

	listed := a.do(httptest.NewRequest(http.MethodGet, pathDeleteRequests, nil))
	require.Equal(t, 200, listed.code)
	require.JSONEq(t, `[`+string(made.Data)+`]`, string(listed.Data))
	require.Contains(t, string(listed.Data), `"state":"pending"`)

	cancelled := a.do(post(pathDeleteRequests + "/" + all[0].ID.String() + "/cancel"))
	require.Equal(t, 200, cancelled.code)
	require.Equal(t, block.DeleteCancelled, a.requests()[0].State)
	require.NoError(t, block.UpdateDelete(t.Context(), a.bkt, all[0].ID, func(r *block.DeleteRequest) error { r.State = block.DeleteDone; return nil }))
	require.Equal(t, 409, a.do(post(pathDeleteRequests+"/"+all[0].ID.String()+"/cancel")).code)
	require.Equal(t, 404, a.do(post(pathDeleteRequests+"/"+ulid.Make().String()+"/cancel")).code)
	require.Equal(t, 400, a.do(post(pathDeleteRequests+"/..%2F..%2Fx/cancel")).code)
}

// TestDeleteAPIAsPrometheus: tools that know Prometheus' path find what they expect.
func TestDeleteAPIAsPrometheus(t *testing.T) {
	a := newAPI(t, true)
	before := time.Now().UnixMilli()
	r := httptest.NewRequest(http.MethodPost, pathDeleteAdmin+"?match[]=up", nil)
	require.Equal(t, 204, a.do(r).code)
	all := a.requests()
	require.Len(t, all, 1)
	require.LessOrEqual(t, all[0].MinTime, int64(0), "from the beginning")
	require.GreaterOrEqual(t, all[0].MaxTime, before, "until now")
	require.Equal(t, "192.0.2.1", all[0].By)
}

// RELIABILITY 5: changing things.
func TestDeleteAPIGuards(t *testing.T) {
	for _, path := range []string{pathDelete, pathDeleteAdmin, pathDeleteRequests + "/" + ulid.Make().String() + "/cancel"} {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodOptions} {
			a := newAPI(t, true)
			got := a.do(httptest.NewRequest(method, path+"?match[]=up", nil))
			require.Equal(t, 405, got.code, method)
			require.Equal(t, "POST", got.header.Get("Allow"))
			require.Equal(t, "error", got.Status)
		}
		a := newAPI(t, false)
		got := a.do(post(path, "match[]", "up"))
		require.Equal(t, 403, got.code)
		require.Contains(t, got.Error, "--web.enable-admin-api")
		require.Empty(t, a.requests())

		for header, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"} {
			a := newAPI(t, true)
			r := post(path, "match[]", "up")
			r.Header.Set(header, value)
			got := a.do(r)
			require.Equal(t, 403, got.code, header)
			require.Contains(t, got.Error, "another origin")
			require.Empty(t, a.requests())
			require.Contains(t, a.log.String(), "another origin refused")
		}
	}
	a := newAPI(t, true)
	r := post(pathDelete, "match[]", "up")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	require.Equal(t, 200, a.do(r).code)
	got := a.do(httptest.NewRequest(http.MethodPost, pathDeleteRequests, nil))
	require.Equal(t, 405, got.code)
	require.Equal(t, "GET", got.header.Get("Allow"))
	require.Equal(t, 404, a.do(httptest.NewRequest(http.MethodGet, pathDeleteRequests+"/nothing/here", nil)).code)
	require.Equal(t, 200, newAPI(t, false).do(httptest.NewRequest(http.MethodGet, pathDeleteRequests, nil)).code, "looking is allowed")
}

func TestDeleteAPIRefuses(t *testing.T) {
	const hostile = `"><img src=x onerror=alert(1)>`
	for name, tc := range map[string]struct {
		params []string
		want   string
	}{
		"no selector":       {nil, "no match[] parameter"},
		"syntax":            {[]string{"match[]", "up{"}, `selector`},
		"hostile":           {[]string{"match[]", hostile}, hostile},
		"everything":        {[]string{"match[]", `{job!=""}`}, "matches nearly every series"},
		"start":             {[]string{"match[]", "up", "start", "yesterday"}, `"start"`},
		"start not finite":  {[]string{"match[]", "up", "start", "NaN"}, `"start"`},
		"end":               {[]string{"match[]", "up", "end", "1e300"}, `"end"`},
		"upside down":       {[]string{"match[]", "up", "start", "10", "end", "5"}, "before it begins"},
		"to come":           {[]string{"match[]", "up", "start", "9999999999"}, "to come"},
		"dry run":           {[]string{"match[]", "up", "dry_run", "perhaps"}, `"dry_run"`},
		"hostile parameter": {[]string{"match[]", "up", "end", hostile}, `"end"`},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t, true)
			got := a.do(post(pathDelete, tc.params...))
			require.Equal(t, 400, got.code, got.body)
			require.Equal(t, "bad_data", got.ErrorType)
			require.Contains(t, strings.ReplaceAll(got.Error, `\"`, `"`), tc.want)
			require.NotContains(t, got.body, "<img", "nothing to be taken for HTML")
			require.Empty(t, a.requests())
		})
	}
	a := newAPI(t, true)
	require.Equal(t, 400, a.do(post(pathDelete, "match[]", strings.Repeat("x", 2<<20))).code)
	got := a.do(post(pathDelete, "match[]", `{job!=""}`, "everything", "true"))
	require.Equal(t, 200, got.code)
}

// TestDeleteAPIShowsHostileSelectorsEscaped: a name may be anything.
func TestDeleteAPIShowsHostileSelectorsEscaped(t *testing.T) {
	a := newAPI(t, true)
	selector := `up{job="<script>alert(1)</script>"}`
	require.Equal(t, 200, a.do(post(pathDelete, "match[]", selector, "reason", "</td><script>")).code)
	got := a.do(httptest.NewRequest(http.MethodGet, pathDeleteRequests, nil))
	require.NotContains(t, got.body, "<")
	var views []deleteView
	require.NoError(t, json.Unmarshal(got.Data, &views))
	require.Equal(t, selector, views[0].Match[0])
}

func TestDeleteAPITellsOfUnreadableRequests(t *testing.T) {
	a := newAPI(t, true)
	require.Equal(t, 200, a.do(post(pathDelete, "match[]", "up")).code)
	id := ulid.Make()
	require.NoError(t, a.bkt.Upload(t.Context(), "firnline/deletes/"+id.String()+".json", strings.NewReader("{")))
	got := a.do(httptest.NewRequest(http.MethodGet, pathDeleteRequests, nil))
	require.Equal(t, 200, got.code)
	require.Len(t, got.Warnings, 1)
	require.Contains(t, got.Warnings[0], id.String())
	require.Contains(t, string(got.Data), `"up"`)
}

func TestDeleteAPIDryRun(t *testing.T) {
	w := newDeleteWorld(t, rand.New(rand.NewPCG(9, 9)))
	a := newAPI(t, true)
	a.Handler = newDeleteAPI(w.bkt, true, func(context.Context) ([]*block.Meta, error) { return w.metas, nil }, slog.New(slog.DiscardHandler))
	got := a.do(post(pathDelete, "match[]", `up{cluster="a"}`, "dry_run", "true"))
	require.Equal(t, 200, got.code, got.body)
	var hits DeleteHits
	require.NoError(t, json.Unmarshal(got.Data, &hits))
	series, chunkCount := w.counted(t, &block.DeleteRequest{Selectors: []string{`up{cluster="a"}`}, MinTime: math.MinInt64, MaxTime: 1 << 62})
	require.Equal(t, []int64{series, chunkCount}, []int64{hits.Series, hits.Chunks})
	require.Positive(t, hits.Samples)
	all, err := block.ListDeletes(t.Context(), w.bkt)
	require.NoError(t, err)
	require.Empty(t, all, "nothing is written")
}

// TestDeleteAPIOneDryRunAtATime: each reads many indexes.
func TestDeleteAPIOneDryRunAtATime(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	a := newAPI(t, true)
	a.Handler = newDeleteAPI(a.bkt, true, func(context.Context) ([]*block.Meta, error) {
		entered <- struct{}{}
		<-leave
		return nil, errors.New("bucket is away")
	}, slog.New(slog.NewTextHandler(&a.log, nil)))
	first := make(chan apiAnswer)
	go func() { first <- a.do(post(pathDelete, "match[]", "up", "dry_run", "1")) }()
	<-entered
	second := a.do(post(pathDelete, "match[]", "up", "dry_run", "1"))
	require.Equal(t, 503, second.code)
	require.NotEmpty(t, second.header.Get("Retry-After"))
	close(leave)
	got := <-first
	require.Equal(t, 500, got.code)
	require.Contains(t, got.Error, "bucket is away")
	require.Contains(t, a.log.String(), "bucket is away")
}

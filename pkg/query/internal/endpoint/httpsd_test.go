package endpoint

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHTTPSD(t *testing.T) {
	answer, code := `[{"targets":["a:1","b:2"],"labels":{"zone":"x"}}]`, 200
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = w.Write([]byte(answer))
	}))
	defer srv.Close()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`[{"targets":["b:2","c:3"]}]`))
	}))
	defer other.Close()
	h := &httpSD{urls: []string{srv.URL, other.URL}, interval: time.Minute, timeout: 2 * time.Minute}
	now := time.Now()
	addresses := func() (out []string) {
		for _, s := range h.specs() {
			require.True(t, s.dynamic())
			out = append(out, s.address)
		}
		return out
	}
	require.NoError(t, h.refresh(t.Context(), now))
	require.Equal(t, []string{"a:1", "b:2", "c:3"}, addresses())

	answer = `[]`
	require.NoError(t, h.refresh(t.Context(), now.Add(time.Second)))
	require.Len(t, addresses(), 3, "it is not asked yet")
	for _, c := range []struct {
		answer string
		code   int
		want   string
	}{
		{`[]`, 503, "answered 503"},
		{`[{"targets": 5}]`, 200, "cannot unmarshal"},
		{`[{"targets": ["no port"]}]`, 200, "no port"},
		{strings.Repeat(" ", httpSDMaxBytes+1), 200, "more than"},
	} {
		now = now.Add(time.Hour)
		answer, code = c.answer, c.code
		require.ErrorContains(t, h.refresh(t.Context(), now), c.want)
		require.Len(t, addresses(), 3, "what was told before stays")
	}
	answer, code = `[]`, 200
	require.NoError(t, h.refresh(t.Context(), now.Add(time.Hour)))
	require.Equal(t, []string{"b:2", "c:3"}, addresses())
}

package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/test/bufconn"
)

// RELIABILITY Q7: a client that leaves in the middle of an answer of some
// megabytes ends its encoding, and an answer that is cut short doesn't look whole.
func TestClientLeavesMidAnswer(t *testing.T) {
	a := newTestAPI(t, loadTestData(t), nil)
	lis := bufconn.Listen(64 << 10) // of which the sizes of buffers are known
	srv := &httptest.Server{Listener: lis, Config: &http.Server{Handler: a, ReadHeaderTimeout: time.Hour}}
	srv.Start()
	defer srv.Close()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return lis.DialContext(ctx) }}}
	defer client.CloseIdleConnections()
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, `http://api/api/v1/query_range?query=%7B__name__%3D~".%2B"%7D&start=0&end=1100&step=0.1`, nil)
	require.NoError(t, err)
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := client.Do(req)
	require.NoError(t, err)
	_, err = io.CopyN(io.Discard, resp.Body, 1000)
	require.NoError(t, err)
	require.Equal(t, 1.0, testutil.ToFloat64(a.metrics.running.WithLabelValues("/query_range")), "the answer is larger than the buffers between us")
	leave()
	resp.Body.Close()
	require.Eventually(t, func() bool {
		return testutil.ToFloat64(a.metrics.running.WithLabelValues("/query_range")) == 0
	}, 2*time.Minute, time.Millisecond)
}

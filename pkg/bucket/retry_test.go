package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

var (
	errTransient = fmt.Errorf("wrapped: %w", minio.ErrorResponse{StatusCode: 500, Code: "InternalError"})
	errThrottled = fmt.Errorf("wrapped: %w", minio.ErrorResponse{StatusCode: 503, Code: "SlowDown"})
	errDenied    = fmt.Errorf("wrapped: %w", minio.ErrorResponse{StatusCode: 403, Code: "AccessDenied"})
)

// script fails the requests it is asked about by the errors of plan, in order,
// and counts them.
type script struct {
	sync.Mutex
	before, after []error
	calls         int
}

func (s *script) hook(_ context.Context, point, _ string) error {
	s.Lock()
	defer s.Unlock()
	plan := &s.after
	if point[len(point)-len("before"):] == "before" {
		plan = &s.before
		s.calls++
	}
	if len(*plan) == 0 {
		return nil
	}
	err := (*plan)[0]
	*plan = (*plan)[1:]
	return err
}

// retried returns a bucket in memory that fails by s, with retries that don't wait.
func retried(s *script) (*Memory, *retrying) {
	m := NewMemory()
	r := withRetry(WithFaults(m, s.hook), 3, newMetrics(prometheus.NewRegistry()))
	r.wait = func(ctx context.Context, _ int) error { return ctx.Err() }
	return m, r
}

func TestRetry(t *testing.T) {
	for _, c := range []struct {
		name   string
		before []error
		calls  int
		want   error
	}{
		{"none needed", nil, 1, nil},
		{"transient", []error{errTransient, errThrottled, ErrShort}, 4, nil},
		{"too often", []error{errTransient, errTransient, errTransient, errTransient, errTransient}, 4, errTransient},
		{"denied", []error{errDenied}, 1, errDenied},
		{"unknown", []error{io.ErrClosedPipe}, 1, io.ErrClosedPipe},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &script{before: c.before}
			_, r := retried(s)
			_, err := r.PutIf(t.Context(), "o", []byte("x"), "")
			require.ErrorIs(t, err, c.want)
			require.Equal(t, c.calls, s.calls)
		})
	}
}

func TestRetryEndsWithItsContext(t *testing.T) {
	s := &script{before: []error{errTransient, errTransient}}
	_, r := retried(s)
	ctx, cancel := context.WithCancel(t.Context())
	r.wait = func(context.Context, int) error { cancel(); return ctx.Err() }
	_, err := r.Exists(ctx, "o")
	require.ErrorIs(t, err, errTransient)
	require.Equal(t, 1, s.calls)
}

// All requests together have a budget, which good answers refill. // RELIABILITY B2
func TestRetryBudget(t *testing.T) {
	down := atomic.Bool{}
	asked := 0
	r := withRetry(WithFaults(NewMemory(), func(_ context.Context, point, _ string) error {
		if point == "bucket/exists/before" {
			asked++
		}
		if down.Load() {
			return errThrottled
		}
		return nil
	}), 5, newMetrics(prometheus.NewRegistry()))
	r.wait = func(context.Context, int) error { return nil }
	exists := func(n int) int {
		before := asked
		for range n {
			_, _ = r.Exists(t.Context(), "o") // what comes of it is counted
		}
		return asked - before
	}
	down.Store(true)
	require.Equal(t, 100+20, exists(100), "a storm: the budget and no more")
	require.Equal(t, 100, exists(100), "and then nothing on top of what is asked")
	require.InDelta(t, 200-4, testutil.ToFloat64(r.metrics.retriesSpent), 0, "all but the four that shared the budget")
	down.Store(false)
	require.Equal(t, 50, exists(50))
	down.Store(true)
	require.Equal(t, 100+10, exists(100), "a fifth of what succeeded")
}

// A PUT that landed and whose answer was lost: 412 to our own retry. // RELIABILITY S2, rule 5
func TestRetryOfPutIfThatLanded(t *testing.T) {
	s := &script{after: []error{errTransient}}
	m, r := retried(s)
	etag, err := r.PutIf(t.Context(), "o", []byte("mine"), "")
	require.NoError(t, err)
	_, have, err := m.GetIf(t.Context(), "o", "")
	require.NoError(t, err)
	require.Equal(t, have, etag)

	// The same for a replace.
	s.after = []error{errTransient}
	etag, err = r.PutIf(t.Context(), "o", []byte("mine again"), etag)
	require.NoError(t, err)

	// Another writer came between: then we lost, and are told so.
	s.after = []error{errTransient}
	r.wait = func(ctx context.Context, _ int) error {
		return m.Upload(ctx, "o", bytes.NewReader([]byte("theirs")))
	}
	_, err = r.PutIf(t.Context(), "o", []byte("mine a third time"), etag)
	require.True(t, r.IsConditionFailedErr(err), "%v", err)
	require.Equal(t, "theirs", string(m.Objects()["o"]))
}

// A condition that fails at once is no lost answer, even if the body is the same.
func TestPutIfOfTheSameBody(t *testing.T) {
	_, r := retried(&script{})
	_, err := r.PutIf(t.Context(), "o", []byte("same"), "")
	require.NoError(t, err)
	_, err = r.PutIf(t.Context(), "o", []byte("same"), "")
	require.True(t, r.IsConditionFailedErr(err))
}

func TestRetryOfDeleteThatLanded(t *testing.T) {
	s := &script{}
	m, r := retried(s)
	require.NoError(t, m.Upload(t.Context(), "o", bytes.NewReader(nil)))
	s.after = []error{errTransient}
	require.NoError(t, r.Delete(t.Context(), "o"))
	require.True(t, r.IsObjNotFoundErr(r.Delete(t.Context(), "o")), "nothing was lost here")
}

func TestRetryRewindsUploads(t *testing.T) {
	s := &script{after: []error{errTransient}}
	m, r := retried(s)
	body := bytes.NewReader([]byte("skipped and sent"))
	_, err := body.Seek(int64(len("skipped and ")), io.SeekStart)
	require.NoError(t, err)
	require.NoError(t, r.Upload(t.Context(), "o", body))
	require.Equal(t, "sent", string(m.Objects()["o"]))

	s.after = []error{errTransient}
	err = r.Upload(t.Context(), "p", io.MultiReader(bytes.NewReader([]byte("read once"))))
	require.ErrorIs(t, err, errTransient, "what can't be rewound is not sent again")
}

// brokenBody ends after n bytes with err.
type brokenBody struct {
	io.Reader
	err error
}

func (b brokenBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = b.err
	}
	return n, err
}

func (b brokenBody) Close() error { return nil }

// breaking breaks bodies after so many bytes, as long as there are entries.
type breaking struct {
	*Memory
	after  []int64
	ranges []string
}

func (b *breaking) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.GetRange(ctx, name, 0, -1)
}

func (b *breaking) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	b.ranges = append(b.ranges, fmt.Sprintf("%d+%d", off, length))
	body, err := b.Memory.GetRange(ctx, name, off, length)
	if err != nil || len(b.after) == 0 {
		return body, err
	}
	n := b.after[0]
	b.after = b.after[1:]
	return brokenBody{io.LimitReader(body, n), io.ErrUnexpectedEOF}, nil
}

func TestRetryReadsOn(t *testing.T) {
	content := "0123456789"
	for _, c := range []struct {
		name        string
		off, length int64 // length 0: Get
		after       []int64
		want        string
		ranges      []string
	}{
		{"whole", 0, 0, nil, content, []string{"0+-1"}},
		{"broken once", 0, 0, []int64{4}, content, []string{"0+-1", "4+-1"}},
		{"broken often", 0, 0, []int64{4, 1, 2}, content, []string{"0+-1", "4+-1", "5+-1", "7+-1"}},
		{"at once", 0, 0, []int64{0}, content, []string{"0+-1", "0+-1"}},
		{"range", 2, 6, []int64{3}, "234567", []string{"2+6", "5+3"}},
		{"range at its end", 2, 6, []int64{6}, "234567", []string{"2+6"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &breaking{Memory: NewMemory(), after: c.after}
			require.NoError(t, b.Upload(t.Context(), "o", bytes.NewReader([]byte(content))))
			_, r := retried(&script{})
			r.Bucket = b
			var body io.ReadCloser
			var err error
			if c.length == 0 {
				body, err = r.Get(t.Context(), "o")
			} else {
				body, err = r.GetRange(t.Context(), "o", c.off, c.length)
			}
			require.NoError(t, err)
			got, err := io.ReadAll(body)
			require.NoError(t, err)
			require.Equal(t, c.want, string(got))
			require.Equal(t, c.ranges, b.ranges)
			require.NoError(t, body.Close())
		})
	}
	t.Run("never again", func(t *testing.T) {
		b := &breaking{Memory: NewMemory(), after: []int64{1, 0, 0, 0, 0, 0}}
		require.NoError(t, b.Upload(t.Context(), "o", bytes.NewReader([]byte(content))))
		_, r := retried(&script{})
		r.Bucket = b
		body, err := r.Get(t.Context(), "o")
		require.NoError(t, err)
		_, err = io.ReadAll(body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.Len(t, b.ranges, 4, "one and three retries")
	})
}

// lame is a bucket whose listings break after every entry but those already given.
type lame struct {
	*Memory
	lists int
}

func (l *lame) ListSizes(ctx context.Context, prefix string, f func(Object) error) error {
	l.lists++
	seen := 0
	err := l.Memory.ListSizes(ctx, prefix, func(o Object) error {
		if seen++; seen > l.lists {
			return errTransient
		}
		return f(o)
	})
	return err
}

func TestRetryGoesOnListing(t *testing.T) {
	l := &lame{Memory: NewMemory()}
	for i := range 4 {
		require.NoError(t, l.Upload(t.Context(), fmt.Sprint(i), bytes.NewReader(nil)))
	}
	_, r := retried(&script{})
	r.Bucket = l
	var names []string
	require.NoError(t, r.ListSizes(t.Context(), "", func(o Object) error {
		names = append(names, o.Name)
		return nil
	}))
	require.Equal(t, []string{"0", "1", "2", "3"}, names)
	require.Equal(t, 4, l.lists)
}

// flaky fails a third of all requests, half of those after they were done.
func flaky(seed uint64) FaultHook {
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(seed, 1))
	return func(context.Context, string, string) error {
		mu.Lock()
		defer mu.Unlock()
		switch rnd.IntN(12) {
		case 0:
			return errTransient
		case 1:
			return errThrottled
		}
		return nil
	}
}

// flakyStack is a bucket with all layers over one that fails at random.
func flakyStack(seed uint64) Bucket {
	m := newMetrics(prometheus.NewRegistry())
	b := WithPrefix(WithFaults(NewMemory(), flaky(seed)), "p")
	l := newLimiter(8, m)
	l.rand = func() float64 { return 0 }
	b = withLimit(withTimeout(withLength(b), time.Minute), l)
	r := withRetry(b, 1000, m)
	r.wait = func(ctx context.Context, _ int) error {
		r.budget.mu.Lock() // without end: the budget has its own test
		defer r.budget.mu.Unlock()
		r.budget.mu.left = budgetMost
		return ctx.Err()
	}
	return withMetrics(r, m)
}

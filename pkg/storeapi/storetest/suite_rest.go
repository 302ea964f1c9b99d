package storetest

import (
	"bytes"
	"context"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
)

// labels asks for names and values.
func (s *suite) labels(t *testing.T) {
	store := s.store(t)
	for _, ms := range [][]*labels.Matcher{
		nil,
		{equal(t, "__name__", "http_requests")},
		{equal(t, "__name__", "http_requests"), matcher(t, labels.MatchNotEqual, "code", "")},
		{equal(t, "__name__", "many"), equal(t, "i", "7")},
		{equal(t, "__name__", "http_requests"), equal(t, "cluster", "eu-1")},
		{equal(t, "__name__", "http_requests"), equal(t, "cluster", "other")},
		{equal(t, "cluster", "eu-1")},
		{equal(t, "__name__", "missing")},
	} {
		sel := s.all(ms...)
		t.Run("names of "+text(ms), func(t *testing.T) {
			got, report, err := store.LabelNames(t.Context(), sel)
			require.NoError(t, err)
			require.Empty(t, report.Warnings)
			require.Equal(t, s.strings(sel, func(l labels.Label) string { return l.Name }), plain(got))
		})
		for _, name := range []string{"__name__", "code", "i", "cluster", "replica", "absent"} {
			t.Run("values of "+name+" of "+text(ms), func(t *testing.T) {
				got, report, err := store.LabelValues(t.Context(), name, sel)
				require.NoError(t, err)
				require.Empty(t, report.Warnings)
				require.Equal(t, s.strings(sel, func(l labels.Label) string {
					if l.Name == name {
						return l.Value
					}
					return ""
				}), plain(got))
			})
		}
	}
	t.Run("limit", func(t *testing.T) { s.labelLimit(t, store) })
	t.Run("without replica labels", func(t *testing.T) {
		sel := s.all(equal(t, "__name__", "many"))
		sel.WithoutReplicaLabels = []string{"replica"}
		names, _, err := store.LabelNames(t.Context(), sel)
		require.NoError(t, err)
		require.Equal(t, []string{"__name__", "cluster", "i", "monitor", "parity"}, names)
		values, _, err := store.LabelValues(t.Context(), "replica", sel)
		require.NoError(t, err)
		require.Empty(t, values)
	})
}

func (s *suite) labelLimit(t *testing.T, store storeapi.Store) {
	sel := s.all(equal(t, "__name__", "many"))
	sel.Limit = 3
	names, _, err := store.LabelNames(t.Context(), sel)
	require.NoError(t, err)
	require.Len(t, names, 3)
	require.True(t, slices.IsSorted(names))
	values, _, err := store.LabelValues(t.Context(), "i", sel)
	require.NoError(t, err)
	require.Len(t, values, 3)
	require.True(t, slices.IsSorted(values))
}

// strings collects what of returns for the labels of the right answer to sel, sorted, never nil.
func (s *suite) strings(sel storeapi.Selection, of func(labels.Label) string) []string {
	out := []string{}
	for _, series := range s.want(sel) {
		series.Labels.Range(func(l labels.Label) {
			if v := of(l); v != "" {
				out = append(out, v)
			}
		})
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// plain makes nil an empty slice, so that both compare as equal.
func plain(in []string) []string { return append([]string{}, in...) }

func text(ms []*labels.Matcher) string {
	out := ""
	for _, m := range ms {
		out += m.String()
	}
	return "{" + out + "}"
}

func (s *suite) badRequests(t *testing.T) {
	store := s.store(t)
	t.Run("values of no label", func(t *testing.T) {
		_, _, err := store.LabelValues(t.Context(), "", s.all())
		require.ErrorIs(t, err, storeapi.ErrBadRequest)
	})
	if !s.requiresMatchers {
		return
	}
	t.Run("no matchers", func(t *testing.T) {
		require.ErrorIs(t, failure(t, store, s.all()), storeapi.ErrBadRequest)
	})
	t.Run("only external labels", func(t *testing.T) {
		require.ErrorIs(t, failure(t, store, s.all(equal(t, "cluster", "eu-1"))), storeapi.ErrBadRequest)
	})
}

// failure returns the error of Series or of its set.
func failure(t *testing.T, store storeapi.Store, sel storeapi.Selection) error {
	t.Helper()
	set, err := store.Series(t.Context(), sel)
	if err != nil {
		return err
	}
	defer set.Close()
	require.False(t, set.Next())
	return set.Err()
}

// endings cancels and closes early.
func (s *suite) endings(t *testing.T) {
	store := s.store(t)
	sel := s.all(matcher(t, labels.MatchRegexp, "__name__", ".+"))
	t.Run("context that has ended", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		within(t, func() {
			set, err := store.Series(ctx, sel)
			if err == nil {
				defer set.Close()
				for set.Next() {
				}
				err = set.Err()
			}
			require.Error(t, err, "an answer cut short must not look complete")
		})
	})
	t.Run("cancel on the way", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		within(t, func() {
			set, err := store.Series(ctx, sel)
			require.NoError(t, err)
			defer set.Close()
			require.True(t, set.Next())
			cancel()
			n := 1
			for set.Next() {
				n++
			}
			if set.Err() == nil {
				require.Len(t, s.want(sel), n, "an answer cut short must not look complete")
			}
		})
	})
	t.Run("close early", func(t *testing.T) { s.closeEarly(t, store, sel) })
}

// closeEarly looks for goroutines that outlive their set. Others of the process
// come and go, but not half as many as there are rounds and all from one place.
func (s *suite) closeEarly(t *testing.T, store storeapi.Store, sel storeapi.Selection) {
	const rounds = 30
	read := func(n int) {
		set, err := store.Series(t.Context(), sel)
		require.NoError(t, err)
		for range n {
			require.True(t, set.Next())
		}
		set.Close()
		set.Close()
		require.False(t, set.Next(), "Next after Close")
	}
	for n := range 3 {
		before, left := startedBy(t), ""
		within(t, func() {
			for range rounds {
				read(n)
			}
		})
		gone := func() bool {
			for place, now := range startedBy(t) {
				if now >= before[place]+rounds/2 {
					left = place
					return false
				}
			}
			return true
		}
		for end := time.Now().Add(promptly); !gone(); time.Sleep(10 * time.Millisecond) {
			require.Less(t, time.Now(), end, "goroutines outlive %d sets closed after %d series: %s", rounds, n, left)
		}
	}
}

// startedBy counts the goroutines of the process by the function that started them.
func startedBy(t *testing.T) map[string]int {
	t.Helper()
	var stacks bytes.Buffer
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&stacks, 2))
	out := map[string]int{}
	for line := range strings.Lines(stacks.String()) {
		if place, ok := strings.CutPrefix(line, "created by "); ok {
			place, _, _ = strings.Cut(place, " in goroutine ")
			out[place]++
		}
	}
	return out
}

// within fails the test when f takes longer than promptly.
func within(t *testing.T, f func()) {
	t.Helper()
	start := time.Now()
	f()
	require.Less(t, time.Since(start), promptly)
}

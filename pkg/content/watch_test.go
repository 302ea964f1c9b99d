package content

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// TestWatch: a file is followed, a wrong one changes nothing, is told once and
// tried again. RELIABILITY K1
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "animals")
		old := time.Now().Add(-time.Hour)
		write := func(text string) {
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			require.NoError(t, os.Chtimes(path, old, old)) // as a copy that keeps times
			time.Sleep(3 * time.Second)
			synctest.Wait()
		}
		require.NoError(t, os.WriteFile(path, []byte("cat"), 0o600))
		var used []string
		var out strings.Builder
		var full atomic.Bool
		w, err := NewWatch(Watched{
			Flag: "animals", File: path, Interval: time.Second, What: "animals", Metrics: "zoo",
			Use: func(text []byte, source string) error {
				require.Equal(t, "--animals-file: "+path, source)
				if string(text) == "dragon" || full.Load() {
					return errors.New("no room for " + string(text))
				}
				used = append(used, string(text))
				return nil
			},
		}, slog.New(slog.NewTextHandler(&out, nil)), prometheus.NewRegistry())
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		good := func() float64 { return testutil.ToFloat64(w.metrics.good) }

		time.Sleep(5*time.Second + 500*time.Millisecond) // from now on never at the moment of a look
		synctest.Wait()
		require.Equal(t, []string{"cat"}, used)
		require.Empty(t, out.String())
		write("dog") // of the same size and time
		require.Equal(t, []string{"cat", "dog"}, used)
		require.Equal(t, 1.0, good())

		write(" \n")
		require.Zero(t, good())
		require.EqualError(t, w.Reload(), "--animals-file: "+path+": is empty")
		require.Equal(t, []string{"cat", "dog"}, used)

		write("dragon")
		require.Zero(t, good())
		require.EqualError(t, w.Reload(), "no room for dragon")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Equal(t, 2, strings.Count(out.String(), "level=ERROR"), out.String())
		require.NoError(t, os.Remove(path))
		require.ErrorContains(t, w.Reload(), "--animals-file: ")
		require.Zero(t, good())
		write("dog")
		require.Equal(t, []string{"cat", "dog"}, used, "it was in force all the time")
		require.Equal(t, 1.0, good())

		full.Store(true)
		write("emu")
		require.Zero(t, good())
		full.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"cat", "dog", "emu"}, used, "tried again")
		require.Equal(t, 1.0, good())
		cancel()
		require.NoError(t, <-done)
	})
}

// TestWatchBegins: at the start a wrong content is an error; a text of a flag is not looked at again.
func TestWatchBegins(t *testing.T) {
	_, err := NewWatch(Watched{Flag: "x", File: filepath.Join(t.TempDir(), "gone")}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.ErrorContains(t, err, "--x-file: ")
	_, err = NewWatch(Watched{Flag: "x", Text: "y", Use: func([]byte, string) error { return errors.New("no") }}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.EqualError(t, err, "no")
	w, err := NewWatch(Watched{Flag: "x", Text: "y", Use: func([]byte, string) error { return nil }}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, w.Run(ctx))
}

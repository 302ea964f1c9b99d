package gokit_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-kit/log/level"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/gokit"
)

func TestLogger(t *testing.T) {
	var out strings.Builder
	noTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	l := gokit.Logger{
		Slog: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: noTime})), Name: "library",
		Redact: func(s string) string { return strings.ReplaceAll(s, "secret", "***") },
		Calm:   func(l gokit.Line) bool { return l.Msg == "as usual" || l.Err == "closed" },
	}
	require.NoError(t, level.Info(l).Log("msg", "begin", "key", "a secret", "n", 1))
	require.NoError(t, l.Log("nothing", "said"))
	require.NoError(t, level.Warn(l).Log("msg", "secret lost", "err", errors.New("no secret")))
	require.NoError(t, level.Error(l).Log("msg", "bad", "odd"))
	require.NoError(t, level.Error(l).Log("msg", "as usual"))
	require.NoError(t, level.Warn(l).Log("msg", "read", "err", errors.New("closed")))
	require.Equal(t, `level=DEBUG msg=begin key="a ***" n=1
level=DEBUG msg=library nothing=said
level=WARN msg="*** lost" err="no ***"
level=ERROR msg=bad odd=(MISSING)
level=DEBUG msg="as usual"
level=DEBUG msg=read err=closed
`, out.String())
}

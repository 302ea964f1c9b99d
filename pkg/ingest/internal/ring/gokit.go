package ring

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/go-kit/log/level"
)

// goKit is the go-kit logger that dskit wants. Its information is our debug:
// what an operator acts on, this package says itself.
type goKit struct{ log *slog.Logger }

func (g goKit) Log(keyvals ...any) error {
	at, msg := slog.LevelDebug, "gossip"
	var attrs []any
	for i := 0; i+1 < len(keyvals); i += 2 {
		key, value := fmt.Sprint(keyvals[i]), keyvals[i+1]
		switch {
		case value == level.WarnValue():
			at = slog.LevelWarn
		case value == level.ErrorValue():
			at = slog.LevelError
		case keyvals[i] == level.Key():
		case key == "msg":
			msg = fmt.Sprint(value)
		default:
			attrs = append(attrs, slog.Any(key, value))
		}
	}
	g.log.Log(context.Background(), at, msg, attrs...)
	return nil
}

package bucket

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/go-kit/log/level"
)

// goKit is the go-kit logger that objstore's providers want. Their messages come
// out as debug, unless they are warnings or errors, and without the target's
// secrets: with trace.enable the S3 client logs whole requests.
type goKit struct {
	log    *slog.Logger
	target *Target
}

func (g goKit) Log(keyvals ...any) error {
	at, msg := slog.LevelDebug, "objstore"
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
			msg = g.target.redact(fmt.Sprint(value))
		default:
			attrs = append(attrs, slog.String(key, g.target.redact(fmt.Sprint(value))))
		}
	}
	g.log.Log(context.Background(), at, msg, attrs...)
	return nil
}

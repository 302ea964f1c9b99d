// Package gokit hands what libraries log by go-kit to slog. Their information is
// our debug: what an operator acts on, our own packages say.
package gokit

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
)

// Logger is a go-kit logger. It is safe for concurrent use.
type Logger struct {
	Slog *slog.Logger
	Name string // of the library: the message of lines without one
	// Redact, if it is there, is given all texts before they are logged.
	Redact func(string) string
	// Calm, if it is there, tells which warnings and errors are none: they are logged as debug.
	Calm func(Line) bool
}

// Line is a warning or error of a library.
type Line struct {
	Msg string
	Err string // "": none
}

var _ log.Logger = Logger{}

// Log implements go-kit's Logger.
func (l Logger) Log(keyvals ...any) error {
	at, line := slog.LevelDebug, Line{Msg: l.Name}
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
			line.Msg = l.text(value)
		default:
			text := l.text(value)
			if key == "err" {
				line.Err = text
			}
			attrs = append(attrs, slog.String(key, text))
		}
	}
	if at > slog.LevelDebug && l.Calm != nil && l.Calm(line) {
		at = slog.LevelDebug
	}
	l.Slog.Log(context.Background(), at, line.Msg, attrs...)
	return nil
}

func (l Logger) text(value any) string {
	text := fmt.Sprint(value)
	if l.Redact != nil {
		return l.Redact(text)
	}
	return text
}

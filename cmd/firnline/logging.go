package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/firnline/firnline/pkg/server"
)

// logConfig is what an operator may set of our own log.
type logConfig struct {
	Level  string
	Format string
}

// RegisterFlags implements configurer.
func (c *logConfig) RegisterFlags(fs *flag.FlagSet) {
	fs.StringVar(&c.Level, "log.level", "info", "Log nothing less severe than this: debug, info, warn or error.")
	fs.StringVar(&c.Format, "log.format", "logfmt", "Form of log lines: logfmt or json. journald is taken for logfmt.")
}

// Validate implements configurer.
func (c *logConfig) Validate() error {
	if _, err := c.level(); err != nil {
		return err
	}
	switch c.Format {
	case "logfmt", "json", "journald":
		return nil
	}
	return fmt.Errorf("--log.format: want logfmt or json, got %q", c.Format)
}

func (c *logConfig) level() (slog.Level, error) {
	switch c.Level {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("--log.level: want debug, info, warn or error, got %q", c.Level)
}

// newLogger makes the process's logger. Times are UTC, durations as people write them.
func newLogger(c logConfig, w io.Writer) *slog.Logger {
	level, err := c.level()
	if err != nil {
		level = slog.LevelInfo // not reached: validated
	}
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch a.Value.Kind() {
		case slog.KindTime:
			a.Value = slog.TimeValue(a.Value.Time().UTC())
		case slog.KindDuration:
			a.Value = slog.StringValue(a.Value.Duration().Round(time.Microsecond).String())
		}
		return a
	}}
	var h slog.Handler = slog.NewTextHandler(w, opts)
	if c.Format == "json" {
		h = slog.NewJSONHandler(w, opts)
	}
	return slog.New(server.LogHandler(h))
}

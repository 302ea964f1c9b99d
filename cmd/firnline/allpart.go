package main

import (
	"context"
	"log/slog"
	"strings"
)

// part is a component inside `firnline all`. Whatever it says while it runs names
// its flags as they are called here: --ingest.tsdb.path where it says --tsdb.path.
type part struct {
	name  string
	flags *merged
}

// log is the part's log, of lines with its name.
func (p part) log(of *process) *slog.Logger {
	return slog.New(renaming{of.bare.Handler(), p}).With("component", p.name)
}

// error words an error by the names of flags here. What it wraps stays.
func (p part) error(err error) error {
	if err == nil {
		return nil
	}
	if text := p.flags.as(p.name, err.Error()); text != err.Error() {
		return renamedError{text, err}
	}
	return err
}

// check words what a check of readiness says.
func (p part) check(ask func() error) func() error {
	return func() error { return p.error(ask()) }
}

// checks does so for each.
func (p part) checks(all map[string]func() error) map[string]func() error {
	out := map[string]func() error{}
	for name, ask := range all {
		out[name] = p.check(ask)
	}
	return out
}

// runner words what a runner ends with.
func (p part) runner(r runner) runner { return renamedRunner{r, p} }

type renamedError struct {
	text string
	error
}

// Error is the text by the names of flags here.
func (e renamedError) Error() string { return e.text }

// Unwrap returns the error as the component worded it.
func (e renamedError) Unwrap() error { return e.error }

type renamedRunner struct {
	runner
	part part
}

// Run implements runner.
func (r renamedRunner) Run(ctx context.Context) error { return r.part.error(r.runner.Run(ctx)) }

// renaming is a log whose texts and errors name flags as they are called here.
type renaming struct {
	slog.Handler
	part part
}

// Handle implements slog.Handler.
func (h renaming) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, h.part.flags.as(h.part.name, r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if text := a.Value.String(); strings.Contains(text, "--") {
			if renamed := h.part.flags.as(h.part.name, text); renamed != text {
				a.Value = slog.StringValue(renamed)
			}
		}
		out.AddAttrs(a)
		return true
	})
	return h.Handler.Handle(ctx, out)
}

// WithAttrs implements slog.Handler.
func (h renaming) WithAttrs(a []slog.Attr) slog.Handler {
	return renaming{h.Handler.WithAttrs(a), h.part}
}

// WithGroup implements slog.Handler.
func (h renaming) WithGroup(name string) slog.Handler {
	return renaming{h.Handler.WithGroup(name), h.part}
}

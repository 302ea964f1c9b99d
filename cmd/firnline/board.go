package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// board writes log lines, and below them, on a terminal, a few lines that are
// drawn anew with each change.
type board struct {
	to       io.Writer
	terminal bool

	mu struct {
		sync.Mutex
		lines []string // drawn at the moment
	}
}

func newBoard(to io.Writer) *board { return &board{to: to, terminal: isTerminal(to)} }

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// Write implements io.Writer for log lines.
func (b *board) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.erase()
	n, err := b.to.Write(p)
	b.draw()
	return n, err
}

// show replaces the lines at the bottom.
func (b *board) show(lines []string) {
	if !b.terminal {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.erase()
	b.mu.lines = lines
	b.draw()
}

// erase moves to where the lines begin and clears from there on.
func (b *board) erase() {
	if n := len(b.mu.lines); n > 0 {
		fmt.Fprintf(b.to, "\x1b[%dA\x1b[J", n)
	}
}

func (b *board) draw() {
	for _, line := range b.mu.lines {
		fmt.Fprintf(b.to, "\x1b[2K%s%s%s\n", wrapOff, clip(line, boardWidth), wrapOn)
	}
}

// A line that wraps could not be erased, so the terminal cuts it at its edge.
const (
	wrapOff = "\x1b[?7l"
	wrapOn  = "\x1b[?7h"

	boardWidth = 250 // of a line, at most
)

func clip(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:width-1]) + "…"
	}
	return s
}

// bar draws a share from 0 to 1.
func bar(share float64, width int) string {
	full := int(min(max(share, 0), 1) * float64(width))
	return "[" + strings.Repeat("=", full) + strings.Repeat(" ", width-full) + "]"
}

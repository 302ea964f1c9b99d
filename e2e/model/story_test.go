package model

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
)

const (
	storyLines = 250 // kept of what happened
	storyWidth = 400 // bytes of a line
	tableLines = 250 // of blocks
)

// story keeps the end of what happened in a history, for the message of its
// failure: what the history did and what its compactors logged.
type story struct {
	mu    sync.Mutex
	lines []string // a ring
	next  int      // where the oldest line is, once it is full
}

// Write takes a line.
func (s *story) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := string(line[:min(len(line), storyWidth)])
	if len(s.lines) < storyLines {
		s.lines = append(s.lines, text)
		return len(line), nil
	}
	s.lines[s.next] = text
	s.next = (s.next + 1) % storyLines
	return len(line), nil
}

func (s *story) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out strings.Builder
	for i := range s.lines {
		fmt.Fprintln(&out, strings.TrimSuffix(s.lines[(s.next+i)%len(s.lines)], "\n"))
	}
	return out.String()
}

// logger logs to the story, by the history's clock, and with LOG=1 shows all of it.
func (h *history) logger(who string) *slog.Logger {
	var to io.Writer = &h.story
	if os.Getenv("LOG") != "" {
		to = io.MultiWriter(to, os.Stderr)
	}
	byClock := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			a.Value = slog.StringValue(when(h.clock.ms()))
		}
		return a
	}
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{ReplaceAttr: byClock})).With("who", who)
}

// tell says how it came to a failure. With -artifacts it leaves the bucket there.
func (h *history) tell() {
	if !h.Failed() {
		return
	}
	h.Logf("the last of what happened:\n%s", &h.story)
	h.Logf("the bucket at %s:\n%s", when(h.clock.ms()), h.table())
	if f := flag.Lookup("test.artifacts"); f == nil || f.Value.String() != "true" {
		return
	}
	for name, data := range h.memory.Objects() {
		path := filepath.Join(h.ArtifactDir(), "bucket", filepath.FromSlash(name))
		require.NoError(h, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(h, os.WriteFile(path, data, 0o600))
	}
	h.Logf("all of it: %s", h.ArtifactDir())
}

// table lists the blocks, a line each.
func (h *history) table() string {
	metas, objects := h.metas(), h.memory.Objects()
	slices.SortFunc(metas, func(a, b *block.Meta) int {
		return cmp.Or(cmp.Compare(a.GroupKey(), b.GroupKey()), cmp.Compare(a.MinTime, b.MinTime), a.ULID.Compare(b.ULID))
	})
	var out strings.Builder
	for _, m := range metas[:min(len(metas), tableLines)] {
		fmt.Fprintf(&out, "%s %v %s %s – %s, level %d of %d, by %s", m.ULID, m.Thanos.Labels, time.Duration(m.Resolution())*time.Millisecond,
			when(m.MinTime), when(m.MaxTime), m.Compaction.Level, len(m.Sources()), m.Thanos.Source)
		if ext, _, err := m.Extension(); err == nil && ext.Shard != nil {
			fmt.Fprintf(&out, ", shard %s of %d sources", ext.Shard.Key(), len(ext.Shard.Sources))
		}
		for _, mark := range []string{block.DeletionMarkFilename, block.NoCompactMarkFilename} {
			if objects[block.Name(m.ULID, mark)] != nil {
				fmt.Fprintf(&out, ", %s", mark)
			}
		}
		fmt.Fprintln(&out)
	}
	if more := len(metas) - tableLines; more > 0 {
		fmt.Fprintf(&out, "and %d more\n", more)
	}
	return out.String()
}

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
)

// watched is a bucket that writes down what is read of it, and can change it.
type watched struct {
	*bucket.Memory
	mu      sync.Mutex
	reads   []read
	asked   []string                                         // whether they are there
	change  func(name string, off int64, body []byte) []byte // nil: as it is
	before  func(name string)                                // called before a read; nil: nothing
	listErr error                                            // of each listing
	metaErr string                                           // block whose meta.json can't be read
}

type read struct {
	name   string
	off, n int64
}

var _ block.Bucket = (*watched)(nil)

func newWatched() *watched { return &watched{Memory: bucket.NewMemory()} }

func (w *watched) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	w.mu.Lock()
	change, before := w.change, w.before
	w.reads = append(w.reads, read{name, off, n})
	w.mu.Unlock()
	if before != nil {
		before(name)
	}
	r, err := w.Memory.GetRange(ctx, name, off, n)
	if err != nil || change == nil {
		return r, err
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(change(name, off, bytes.Clone(b)))), nil
}

func (w *watched) Exists(ctx context.Context, name string) (bool, error) {
	w.mu.Lock()
	w.asked = append(w.asked, name)
	w.mu.Unlock()
	return w.Memory.Exists(ctx, name)
}

// takeAsked returns what of a block was asked for by name since the last call.
func (w *watched) takeAsked(id ulid.ULID) (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range w.asked {
		if rest, ok := strings.CutPrefix(name, block.Name(id, "")); ok {
			out = append(out, rest)
		}
	}
	w.asked = nil
	return out
}

func (w *watched) ListSizes(ctx context.Context, prefix string, f func(block.Object) error) error {
	w.mu.Lock()
	err := w.listErr
	w.mu.Unlock()
	if err != nil {
		return err
	}
	return w.Memory.ListSizes(ctx, prefix, f)
}

func (w *watched) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	w.mu.Lock()
	broken := w.metaErr
	w.mu.Unlock()
	if broken != "" && strings.HasPrefix(name, broken) {
		return nil, errors.New("access denied")
	}
	return w.Memory.Get(ctx, name)
}

func (w *watched) GetIf(ctx context.Context, name, etag string) ([]byte, string, error) {
	w.mu.Lock()
	broken := w.metaErr
	w.mu.Unlock()
	if broken != "" && strings.HasPrefix(name, broken) {
		return nil, "", errors.New("access denied")
	}
	return w.Memory.GetIf(ctx, name, etag)
}

// breakObject changes each answer from the object that ends in suffix.
func (w *watched) breakObject(suffix string, change func(off int64, body []byte) []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.change = func(name string, off int64, body []byte) []byte {
		if !strings.HasSuffix(name, suffix) {
			return body
		}
		return change(off, body)
	}
}

// takeReads returns the ranged GETs since the last call, one a line, sorted,
// with names below the block and offsets from what the index's sections are.
func (w *watched) takeReads() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortStableFunc(w.reads, func(a, b read) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return int(a.off - b.off)
	})
	var out strings.Builder
	for _, r := range w.reads {
		_, rel, _ := block.SplitName(r.name)
		fmt.Fprintf(&out, "GET %s %d-%d\n", rel, r.off, r.off+r.n)
	}
	w.reads = nil
	if out.Len() == 0 {
		return "nothing\n"
	}
	return out.String()
}

package compact

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// findings are the keys of plan.Input.Unmatched: what blocks were found not to
// hold, so that nobody looks again. They are kept in a file of the data folder;
// without it the blocks are looked through once more. Each key begins with a
// block's ULID.
type findings struct {
	path string
	mu   *sync.Mutex // guards what follows
	set  map[string]bool
	n    int // version
}

// maxFindings bounds what is remembered of results that are in no bucket, and so
// can't be forgotten with them.
const maxFindings = 1_000_000

func readFindings(dir string) (findings, error) {
	f := findings{path: filepath.Join(dir, "unmatched.json"), mu: &sync.Mutex{}, set: map[string]bool{}}
	data, err := os.ReadFile(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, fmt.Errorf("--data-dir: %w", err)
	}
	var keys []string
	if json.Unmarshal(data, &keys) == nil { // a torn file is an empty one
		for _, k := range keys {
			f.set[k] = true
		}
	}
	return f, nil
}

// unmatched returns the findings, which must not be changed, and their version.
func (f *findings) unmatched() (map[string]bool, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.set, f.n
}

// add notes that blocks hold nothing of classes, and forgets blocks that are gone.
func (f *findings) add(known map[ulid.ULID]*block.Meta, keys ...string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := maps.Clone(f.set)
	maps.DeleteFunc(next, func(key string, _ bool) bool {
		id, ok := block.ParseID(key[:min(len(key), ulid.EncodedSize)])
		return !ok || known[id] == nil && key != plan.VoidKey(id)
	})
	for _, k := range keys {
		next[k] = true
	}
	if len(next) > maxFindings {
		next = map[string]bool{} // nothing is lost but the time to find out again
	}
	f.set, f.n = next, f.n+1
	data, err := json.Marshal(slices.Sorted(maps.Keys(next)))
	if err != nil {
		return fmt.Errorf("findings: %w", err)
	}
	return block.WriteFile(f.path, data)
}

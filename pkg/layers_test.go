// Package pkg holds no code: its test keeps the imports of the rooms below it on the map.
package pkg

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/firnline/firnline/"

// floors is the map: a room may import rooms on floors below its own, none
// beside it. docs/architecture.md draws it.
var floors = map[string]int{
	"pkg/content": -1, "pkg/gokit": -1, "pkg/rawchunk": -1, // so small that floor 0 may use them
	"pkg/block": 0, "pkg/downsample": 0, "pkg/bucket": 0, "pkg/tenant": 0, "pkg/ui": 0,
	"pkg/storeapi": 1, "pkg/dedup": 1, "pkg/server": 1,
	"pkg/sidecar": 2, "pkg/store": 2, "pkg/query": 2, "pkg/compact": 2, "pkg/ingest": 2, "pkg/tools": 2,
	"cmd/firnline": 3,
}

// onlyFrom names packages that only some rooms may import.
var onlyFrom = map[string][]string{
	module + "pkg/bucket":                   {"cmd/firnline"},
	module + "pkg/server":                   {"cmd/firnline"},
	module + "pkg/storeapi/storepb":         {"pkg/storeapi"},
	"github.com/thanos-io/objstore/":        {"pkg/bucket"}, // its providers; the interface itself is everybody's
	"github.com/spf13/cobra":                {"cmd/firnline"},
	"github.com/prometheus/prometheus/web/": {}, // tests compare with it
}

func TestImportsPointDown(t *testing.T) {
	for dir, imports := range importsOf(t, "..") {
		room := roomOf(dir)
		floor, known := floors[room]
		if !known {
			t.Errorf("%s is on no floor: put its room on the map in this test and in docs/architecture.md", dir)
			continue
		}
		for _, imp := range imports {
			for prefix, rooms := range onlyFrom {
				if strings.HasPrefix(imp, prefix) && room != roomOf(strings.TrimPrefix(prefix, module)) && !slices.Contains(rooms, room) {
					t.Errorf("%s imports %s, which only %v may", dir, imp, rooms)
				}
			}
			ours, ok := strings.CutPrefix(imp, module)
			if !ok || roomOf(ours) == room {
				continue
			}
			if below, ok := floors[roomOf(ours)]; !ok || below >= floor {
				t.Errorf("%s (floor %d) imports %s (floor %d): imports point down, never sideways", dir, floor, ours, below)
			}
		}
	}
}

// TestImportableRoomsStayLight: others may import these, and the ring and kv of
// dskit need a replace line in the importing module.
func TestImportableRoomsStayLight(t *testing.T) {
	rooms := []string{"storeapi", "block", "downsample", "dedup"}
	for _, room := range rooms {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "./"+room).Output()
		require.NoError(t, err)
		for dep := range strings.Lines(string(out)) {
			for _, heavy := range []string{"ring", "kv", "servicediscovery"} {
				if strings.HasPrefix(dep, "github.com/grafana/dskit/"+heavy) {
					t.Errorf("%s reaches %s", room, strings.TrimSpace(dep))
				}
			}
		}
	}
}

// roomOf returns the first two elements of a folder: pkg/store/internal/fetch is in pkg/store.
func roomOf(dir string) string {
	parts := strings.SplitN(dir, "/", 3)
	return strings.Join(parts[:min(2, len(parts))], "/")
}

// importsOf returns what the code below cmd and pkg imports, by folder. Tests,
// and rooms that only tests use, may import what they like.
func importsOf(t *testing.T, root string) map[string][]string {
	all := map[string][]string{}
	fset := token.NewFileSet()
	for _, top := range []string{"cmd", "pkg"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			dir, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil || strings.HasSuffix(dir, "test") || dir == "pkg" {
				return err
			}
			f, err := parser.ParseFile(fset, path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			for _, spec := range f.Imports {
				imp, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					return err
				}
				all[filepath.ToSlash(dir)] = append(all[filepath.ToSlash(dir)], imp)
			}
			return nil
		})
		require.NoError(t, err)
	}
	require.Greater(t, len(all), 10, "the walk found the code")
	return all
}

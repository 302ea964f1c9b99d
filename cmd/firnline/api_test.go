package main

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// apiPage reads docs/api.md.
func apiPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/api.md")
	require.NoError(t, err)
	return string(text)
}

// TestAPIPageHasRoutes: whatever path is written in the code that serves HTTP stands
// in its section of docs/api.md.
func TestAPIPageHasRoutes(t *testing.T) {
	parts := map[string]bool{"/": true, "/api/v1": true, "/api/v1/": true, "/-/": true, "/debug/": true, "/prometheus": true, "/{id}/cancel": true}
	for dir, sections := range map[string][]string{
		"server":             {"Every component"},
		"query/internal/api": {"Querier"},
		"ingest":             {"Writes", "Ingester"},
		"compact":            {"Compactor"},
	} {
		text := ""
		for _, s := range sections {
			_, section, found := strings.Cut(apiPage(t), "\n## "+s+"\n")
			require.True(t, found, s)
			section, _, _ = strings.Cut(section, "\n## ")
			text += section
		}
		paths := pathsIn(t, filepath.Join("..", "..", "pkg", dir))
		require.Greater(t, len(paths), 4, dir)
		for _, p := range paths {
			if !parts[p] {
				require.Regexp(t, "`(GET |POST )?(/api/v1)?"+regexp.QuoteMeta(p), text, "pkg/%s serves %s", dir, p)
			}
		}
	}
}

// pathsIn returns the paths among the strings in a package's code.
func pathsIn(t *testing.T, dir string) (out []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	path := regexp.MustCompile(`^(?:(?:GET|POST) )?(/[a-zA-Z0-9_/{}-]*)$`)
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				s, err := strconv.Unquote(lit.Value)
				require.NoError(t, err)
				if m := path.FindStringSubmatch(s); m != nil {
					out = append(out, m[1])
				}
			}
			return true
		})
	}
	return out
}

// TestAPIPageHasServices: the table of gRPC services in docs/api.md is what is registered.
func TestAPIPageHasServices(t *testing.T) {
	who := map[string][]string{}
	for _, c := range components() {
		if c.name == "compact" {
			continue // which has no gRPC
		}
		build := c.build
		c.build = func(ctx context.Context, p *process) ([]runner, error) {
			parts, err := build(ctx, p)
			for service := range p.srv.GRPC().GetServiceInfo() {
				if !strings.HasPrefix(service, "grpc.") {
					who[service] = append(who[service], "`"+c.name+"`")
				}
			}
			return parts, err
		}
		registered(t, c, nil)
	}
	_, section, _ := strings.Cut(apiPage(t), "\n## gRPC\n")
	rows := regexp.MustCompile("(?m)^\\| `([a-zA-Z0-9.]+)` \\| .* \\| (.*) \\|$").FindAllStringSubmatch(section, -1)
	said := map[string][]string{}
	for _, row := range rows {
		said[row[1]] = strings.Split(row[2], ", ")
		slices.Sort(said[row[1]])
	}
	for service := range who {
		slices.Sort(who[service])
	}
	require.Equal(t, fmt.Sprint(who), fmt.Sprint(said))
}

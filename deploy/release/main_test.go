package main

import (
	"bytes"
	"os"
	"testing"
	"time"

	"debug/buildinfo"

	"github.com/spdx/tools-golang/json"
	"github.com/stretchr/testify/require"
)

// TestDocument makes the SBOM of the test itself and reads it as others would.
func TestDocument(t *testing.T) {
	binary, err := os.Executable()
	require.NoError(t, err)
	info, err := buildinfo.ReadFile(binary)
	require.NoError(t, err)
	var buf bytes.Buffer
	require.NoError(t, json.Write(document("firnline", "v1.2.3", time.Unix(0, 0), info), &buf))
	doc, err := json.Read(&buf)
	require.NoError(t, err)
	require.Equal(t, "1970-01-01T00:00:00Z", doc.CreationInfo.Created)
	require.Len(t, doc.Packages, 2+len(info.Deps))
	ids, names := map[string]bool{}, map[string]bool{}
	for _, p := range doc.Packages {
		require.False(t, ids[string(p.PackageSPDXIdentifier)], "two of %s", p.PackageSPDXIdentifier)
		ids[string(p.PackageSPDXIdentifier)], names[p.PackageName] = true, true
		require.NotEmpty(t, p.PackageVersion)
	}
	require.True(t, names["github.com/spdx/tools-golang"] && names["std"])
	require.Len(t, doc.Relationships, len(doc.Packages))
}

func TestNoBinary(t *testing.T) {
	require.ErrorContains(t, run("main.go", "v1", "2026-01-01T00:00:00Z"), "main.go")
	require.Error(t, run(os.Args[0], "v1", "yesterday"))
}

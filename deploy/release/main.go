// Command release writes the SBOM of a built binary: an SPDX 2.3 document of the
// modules that are linked into it, as the Go linker has noted them there.
package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"time"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: release BINARY VERSION COMMIT-TIME > sbom.spdx.json")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// run writes the document to stdout. The time is that of the commit, so that
// the same source gives the same bytes.
func run(binary, version, commitTime string) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return err
	}
	if len(info.Deps) == 0 {
		return fmt.Errorf("%s: %w", binary, errors.New("no modules are noted in it"))
	}
	created, err := time.Parse(time.RFC3339, commitTime)
	if err != nil {
		return fmt.Errorf("commit time: %w", err)
	}
	return json.Write(document(filepath.Base(binary), version, created, info), os.Stdout)
}

func document(binary, version string, created time.Time, info *debug.BuildInfo) *v2_3.Document {
	doc := &v2_3.Document{
		SPDXVersion: v2_3.Version, DataLicense: v2_3.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName:      binary + "-" + version,
		DocumentNamespace: fmt.Sprintf("https://github.com/firnline/firnline/sbom/%s-%s", binary, version),
		CreationInfo: &v2_3.CreationInfo{
			Created: created.UTC().Format(time.RFC3339), Creators: []common.Creator{{CreatorType: "Organization", Creator: "Firnline"}},
		},
	}
	main := pack(info.Main.Path, version)
	doc.Packages = append(doc.Packages, main)
	relate(doc, "DOCUMENT", main.PackageSPDXIdentifier, common.TypeRelationshipDescribe)
	std := pack("std", info.GoVersion)
	doc.Packages = append(doc.Packages, std)
	relate(doc, main.PackageSPDXIdentifier, std.PackageSPDXIdentifier, common.TypeRelationshipDependsOn)
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		p := pack(m.Path, m.Version)
		doc.Packages = append(doc.Packages, p)
		relate(doc, main.PackageSPDXIdentifier, p.PackageSPDXIdentifier, common.TypeRelationshipDependsOn)
	}
	return doc
}

// pack describes a Go module by its package URL.
func pack(path, version string) *v2_3.Package {
	const undetermined = "NOASSERTION"
	return &v2_3.Package{
		PackageName: path, PackageVersion: version, PackageSPDXIdentifier: identifier(path),
		PackageDownloadLocation: undetermined, PackageLicenseConcluded: undetermined,
		PackageLicenseDeclared: undetermined, PackageCopyrightText: undetermined,
		PackageExternalReferences: []*v2_3.PackageExternalReference{{
			Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL,
			Locator: fmt.Sprintf("pkg:golang/%s@%s", path, version),
		}},
	}
}

var notInIdentifier = regexp.MustCompile(`[^A-Za-z0-9.-]`)

func identifier(path string) common.ElementID {
	return common.ElementID("Package-" + notInIdentifier.ReplaceAllString(path, "-"))
}

func relate(doc *v2_3.Document, from, to common.ElementID, kind string) {
	doc.Relationships = append(doc.Relationships, &v2_3.Relationship{
		RefA: common.MakeDocElementID("", string(from)), RefB: common.MakeDocElementID("", string(to)), Relationship: kind,
	})
}

package bucket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/azure"
	"github.com/thanos-io/objstore/providers/gcs"
	"github.com/thanos-io/objstore/providers/s3"
	"go.yaml.in/yaml/v3"

	"github.com/firnline/firnline/pkg/content"
)

// supported lists the types that ParseConfig accepts; elsewhere those that
// Thanos has and we don't.
var (
	supported = []objstore.ObjProvider{objstore.AZURE, objstore.FILESYSTEM, objstore.GCS, objstore.S3}
	elsewhere = []objstore.ObjProvider{objstore.SWIFT, objstore.COS, objstore.ALIYUNOSS, objstore.BOS, objstore.OCI, objstore.OBS}
)

// ParseConfig reads an objstore YAML as Thanos has it, after replacing $(NAME)
// by environment variables. The error lists everything that is wrong, one
// problem a line, with the line of the YAML where there is one; it shows no
// values, since any of them may be a secret.
func ParseConfig(given []byte) (*Target, error) {
	text, err := content.Expand(string(given), os.LookupEnv)
	if err != nil {
		return nil, content.Name("objstore config", err)
	}
	root, err := parseDocument([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("objstore config: %w", err)
	}
	t, problems := parseTarget(root)
	if len(problems) > 0 {
		return nil, content.Name("objstore config", errors.Join(problems...))
	}
	return t, nil
}

// parseDocument returns the mapping that is content's only document.
func parseDocument(content []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(content))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("it is empty; it needs type and config")
	case err != nil:
		return nil, syntaxError(err)
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		return nil, fmt.Errorf("line %d: a second YAML document; there must be one", second.Line)
	case !errors.Is(err, io.EOF):
		return nil, syntaxError(err)
	}
	root := resolve(doc.Content[0])
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: want a mapping with type and config", root.Line)
	}
	return root, nil
}

// syntaxError words what the YAML parser says, without the bit of the text that one of its errors quotes.
func syntaxError(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if i := strings.Index(text, "unknown anchor"); i >= 0 {
		return fmt.Errorf("malformed YAML: %sa value that begins with * needs quotes", text[:i])
	}
	return fmt.Errorf("malformed YAML: %s", text)
}

// document is the top level of the YAML.
type document struct {
	Type    string    `yaml:"type"`
	Config  yaml.Node `yaml:"config"`
	Prefix  string    `yaml:"prefix"`
	Hedging hedging   `yaml:"hedging_config"`
}

type hedging struct {
	Enabled  bool    `yaml:"enabled"`
	UpTo     uint    `yaml:"up_to"`
	Quantile float64 `yaml:"quantile"`
}

// parseTarget reads the mapping root and returns all problems it finds.
func parseTarget(root *yaml.Node) (*Target, []error) {
	var doc document
	errs := fill(&doc, root, "")
	t := &Target{Type: objstore.ObjProvider(strings.ToUpper(doc.Type)), Prefix: strings.Trim(doc.Prefix, objstore.DirDelim)}
	if doc.Hedging.Enabled {
		t.Warnings = append(t.Warnings, "hedging_config has no effect: when to ask twice is decided by the read planner, from the times it measures")
	}
	config, err := t.newConfig(doc.Type)
	if err != nil {
		return nil, append(errs, err)
	}
	if doc.Config.Kind != 0 {
		errs = append(errs, fill(config, resolve(&doc.Config), "config.")...)
	}
	if t.azure != nil && t.azure.MSIResource != "" { //nolint:staticcheck // deprecated, which is what is said of it
		t.Warnings = append(t.Warnings, "config.msi_resource has no effect: the Azure SDK finds it")
	}
	return t, append(errs, t.validate()...)
}

// newConfig makes the provider's config with its defaults and returns it.
func (t *Target) newConfig(asWritten string) (any, error) {
	switch {
	case t.Type == objstore.S3:
		c := s3.DefaultConfig
		c.PutUserMetadata = map[string]string{} // the default's is shared by all
		t.s3 = &c
		return t.s3, nil
	case t.Type == objstore.GCS:
		c := gcs.DefaultConfig
		t.gcs = &c
		return t.gcs, nil
	case t.Type == objstore.AZURE:
		c := azure.DefaultConfig
		c.StorageCreateContainer = false // a bucket is made only when the YAML says so
		t.azure = &c
		return t.azure, nil
	case t.Type == objstore.FILESYSTEM:
		t.folder = &folderConfig{}
		return t.folder, nil
	case t.Type == "":
		return nil, fmt.Errorf("type: missing: one of %v", supported)
	case slices.Contains(elsewhere, t.Type):
		return nil, fmt.Errorf("type: %s is one that Thanos has and Firnline has not; supported are %v", t.Type, supported)
	}
	return nil, fmt.Errorf("type: %q is not supported; supported are %v", asWritten, supported)
}

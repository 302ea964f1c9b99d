package tenant

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/firnline/firnline/pkg/content"
)

// A file of limits is YAML, T being what the component knows:
//
//	write:               # the section
//	  global: {…}        # Thanos' limits of a whole process: no effect, warned of
//	  default: T         # for tenants that are not listed, and what those listed leave out
//	  tenants:
//	    team-a: T
type section[T any] struct {
	Global  map[string]any `yaml:"global"`
	Default T              `yaml:"default"`
	Tenants map[string]T   `yaml:"tenants"`
}

// parse reads a file of limits; nil content has none. An error says each wrong
// place, as in "--receive.limits-config-file: limits.yaml:7: …". ignored lists
// keys that have no effect.
func (f *Form[T]) parse(source string, data []byte) (set *Set[T], ignored []string, err error) {
	var root yaml.Node
	if data != nil {
		if ignored, err = f.strict(&root, data); err != nil {
			return nil, nil, located(source, err)
		}
	}
	body := child(document(&root), f.Section)
	set = &Set[T]{tenants: map[ID]one[T]{}, text: string(data)}
	var errs []error
	def := child(body, "default")
	if set.rest, err = f.make(def); err != nil {
		errs = append(errs, place(def, "default", err))
	}
	for key, value := range pairs(child(body, "tenants")) {
		id, err := Parse(key.Value)
		if err != nil {
			errs = append(errs, place(key, "tenants", err))
			continue
		}
		// With the defaults decoded anew below: maps and pointers of a copy would be shared.
		if set.tenants[id], err = f.make(def, value); err != nil {
			errs = append(errs, place(key, "tenant "+key.Value, err))
		}
	}
	if len(errs) > 0 {
		return nil, nil, located(source, errs...)
	}
	return set, ignored, nil
}

// make lays nodes over each other, the defaults below them.
func (f *Form[T]) make(layers ...*yaml.Node) (one[T], error) {
	v := f.Defaults()
	for _, n := range layers {
		if n == nil {
			continue
		}
		if err := n.Decode(&v); err != nil {
			return one[T]{}, content.YAMLError(err)
		}
	}
	if c, ok := any(&v).(interface{ Validate() error }); ok {
		if err := c.Validate(); err != nil {
			return one[T]{}, err
		}
	}
	text, err := yaml.Marshal(v)
	if err != nil {
		return one[T]{}, fmt.Errorf("write limits as YAML: %w", err)
	}
	return one[T]{value: &v, text: string(text)}, nil
}

// strict reads the one document of a file and finds keys that nobody knows.
func (f *Form[T]) strict(root *yaml.Node, data []byte) (ignored []string, err error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	switch err := dec.Decode(root); {
	case errors.Is(err, io.EOF): // half written, most likely: without its limits a tenant could do anything
		return nil, fmt.Errorf("line 1: it is empty; write \"%s: {}\" for no limits", f.Section)
	case err != nil:
		return nil, content.YAMLError(err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more than one document; one is wanted")
	}
	for key := range pairs(document(root)) {
		if key.Value != f.Section {
			return nil, fmt.Errorf("line %d: unknown key %q; %q is wanted", key.Line, key.Value, f.Section)
		}
	}
	var typed map[string]section[T]
	known := yaml.NewDecoder(bytes.NewReader(data))
	known.KnownFields(true)
	if err := known.Decode(&typed); err != nil {
		return nil, content.YAMLError(err)
	}
	for key := range typed[f.Section].Global {
		ignored = append(ignored, f.Section+".global."+key)
	}
	slices.Sort(ignored)
	return ignored, nil
}

// document is the root below a document node; nil if there is none.
func document(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		return n.Content[0]
	}
	return nil
}

// child is the value of a key of a mapping; nil if there is none.
func child(n *yaml.Node, key string) *yaml.Node {
	for k, v := range pairs(n) {
		if k.Value == key {
			return v
		}
	}
	return nil
}

// pairs walks the keys of a mapping.
func pairs(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(k, v *yaml.Node) bool) {
		for n != nil && n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		if n == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

// place says where err is, unless it does so itself.
func place(n *yaml.Node, what string, err error) error {
	if n == nil || strings.HasPrefix(err.Error(), "line ") {
		return err
	}
	return fmt.Errorf("line %d: %s: %w", n.Line, what, err)
}

// located puts the source before each of the errors: "--flag-file: file:7: …".
func located(source string, errs ...error) error {
	var all []error
	for _, err := range errs {
		if text, ok := strings.CutPrefix(err.Error(), "line "); ok {
			err = fmt.Errorf("%s:%s", source, text)
		} else {
			err = fmt.Errorf("%s: %w", source, err)
		}
		all = append(all, err)
	}
	return errors.Join(all...)
}

package bucket

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
)

// fill sets the fields of the struct that into points to from a YAML mapping,
// and returns all that is wrong with it: keys that are unknown or given twice,
// and values of another type. The YAML package would stop at some of these and
// would quote values, which may be secrets.
func fill(into any, m *yaml.Node, path string) []error {
	return filler{}.fill(into, m, path)
}

// filler is the set of mappings being read, since one may name itself.
type filler map[*yaml.Node]bool

func (open filler) fill(into any, m *yaml.Node, path string) []error {
	if open[m] {
		return []error{fmt.Errorf("line %d: a mapping that contains itself", m.Line)}
	}
	open[m] = true
	defer delete(open, m)
	if m.Kind == yaml.ScalarNode && m.Tag == "!!null" {
		return nil
	}
	if m.Kind != yaml.MappingNode {
		return []error{fmt.Errorf("line %d: %s: want a mapping", m.Line, strings.TrimSuffix(path, "."))}
	}
	v := reflect.ValueOf(into).Elem()
	fields := fieldsByKey(v)
	var errs []error
	seen := map[string]int{}
	for i := 0; i+1 < len(m.Content); i += 2 {
		key, value := m.Content[i], resolve(m.Content[i+1])
		field, known := fields[key.Value]
		first, twice := seen[key.Value]
		seen[key.Value] = key.Line
		switch {
		case key.Tag == "!!merge":
			errs = append(errs, open.fill(into, value, path)...)
		case !known:
			errs = append(errs, fmt.Errorf("line %d: unknown key %s%s%s", key.Line, path, key.Value, suggest(key.Value, fields)))
		case twice:
			errs = append(errs, fmt.Errorf("line %d: key %s%s is given twice, first in line %d", key.Line, path, key.Value, first))
		case isSection(field):
			errs = append(errs, open.fill(field.Addr().Interface(), value, path+key.Value+".")...)
		default:
			if err := value.Decode(field.Addr().Interface()); err != nil {
				errs = append(errs, fmt.Errorf("line %d: key %s%s: want %s", value.Line, path, key.Value, wanted(field.Type())))
			}
		}
	}
	return errs
}

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// fieldsByKey returns the fields of struct v that YAML can set.
func fieldsByKey(v reflect.Value) map[string]reflect.Value {
	out := map[string]reflect.Value{}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if key != "" && key != "-" && f.IsExported() {
			out[key] = v.Field(i)
		}
	}
	return out
}

// isSection tells a nested mapping from a value.
func isSection(v reflect.Value) bool {
	return v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[yaml.Node]()
}

// wanted describes the values of type t.
func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[model.Duration]():
		return "a duration such as 30s or 2m"
	case strings.HasSuffix(t.Name(), "LookupType"):
		return "one of auto, virtual-hosted, path"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint32, reflect.Uint64:
		return "a whole number that is not negative"
	case reflect.Float64:
		return "a number"
	case reflect.Map:
		return "a mapping of texts"
	}
	return "a text"
}

// suggest names the known key that is nearest to a misspelt one.
func suggest(key string, fields map[string]reflect.Value) string {
	best, at := 3, ""
	for known := range fields {
		if d := distance(key, known); d < best || (d == best && at != "" && known < at) {
			best, at = d, known
		}
	}
	if at == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", at)
}

// distance counts the letters to insert, drop or change to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := slices.Clone(row)
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(row[j]+cost, row[j+1]+1, next[j]+1)
		}
		row = next
	}
	return row[len(b)]
}

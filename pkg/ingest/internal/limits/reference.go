package limits

import (
	"fmt"
	"reflect"
)

// Entry is one limit for a page of reference.
type Entry struct{ Key, Default, Doc string }

// Reference lists all limits in the order of the struct.
func Reference() []Entry { return entries("", reflect.ValueOf(Defaults())) }

func entries(prefix string, v reflect.Value) []Entry {
	var all []Entry
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key := prefix + f.Tag.Get("yaml")
		all = append(all, Entry{key, text(v.Field(i)), f.Tag.Get("doc")})
		if f.Type.Kind() == reflect.Struct {
			all = append(all, entries(key+".", v.Field(i))...)
		}
	}
	return all
}

// text is a default as it is written in the file; empty for what has keys of its own or none.
func text(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Struct, reflect.Slice, reflect.Map:
		return ""
	}
	return fmt.Sprint(v.Interface())
}

// Verdict is a text that is the same for all limits under which each series
// meets the same fate. Rates and sizes are not in it: they are checked by request.
func (l *Limits) Verdict() string {
	relabelling := ""
	for _, c := range l.RelabelConfigs {
		relabelling += fmt.Sprintf("%+v %s\n", *c, c.Regex.String())
	}
	return fmt.Sprintf("%d %d %d %v %q %q %s %v %v %+v", l.MaxLabels, l.MaxLabelNameBytes, l.MaxLabelValueBytes,
		l.HA.Enabled, l.HA.ClusterLabel, l.HA.ReplicaLabel, relabelling, l.Drop, l.ActiveSeries, l.OTLP)
}

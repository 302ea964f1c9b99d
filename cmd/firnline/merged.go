package main

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// merged makes one configuration of those of several components:
//
//   - a flag that one of them has keeps its name;
//   - a flag that several have, and that means the same in each, is given once and set in all;
//   - a flag whose meaning differs takes the component's name as prefix: --ingest.tsdb.path;
//   - a flag that can have but one value here is left out.
//
// Which is which stands in tables (allflags.go), and a golden file lists what comes of them.
type merged struct {
	parts    []mergedPart
	apart    []string          // names that mean different things
	usage    map[string]string // of names given once, where the components' texts don't fit
	leaveOut []string
	defaults map[string]string // other than the component's, by the name here
	shown    map[string]string // defaults that are found out later, as help tells them

	owners map[string][]string // components, by the name here; valid after RegisterFlags
}

// mergedPart is the configuration of a component.
type mergedPart struct {
	name   string
	config configurer
}

// ownedFlag is a flag of one component.
type ownedFlag struct {
	owner string
	*flag.Flag
}

// RegisterFlags implements configurer.
func (m *merged) RegisterFlags(fs *flag.FlagSet) {
	m.owners = map[string][]string{}
	byName := m.collect()
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		owned := byName[name]
		switch {
		case slices.Contains(m.leaveOut, name):
		case slices.Contains(m.apart, name):
			for _, f := range owned {
				m.register(fs, f.owner+"."+name, []ownedFlag{f})
			}
		default:
			m.register(fs, name, owned)
		}
	}
}

// collect lets each component register its flags by itself and returns them by name.
func (m *merged) collect() map[string][]ownedFlag {
	byName := map[string][]ownedFlag{}
	for _, p := range m.parts {
		own := flag.NewFlagSet(p.name, flag.ContinueOnError)
		p.config.RegisterFlags(own)
		own.VisitAll(func(f *flag.Flag) { byName[f.Name] = append(byName[f.Name], ownedFlag{p.name, f}) })
	}
	return byName
}

// register adds one flag for those of its owners.
func (m *merged) register(fs *flag.FlagSet, name string, owned []ownedFlag) {
	first := owned[0]
	v := first.Value
	if len(owned) > 1 {
		both := &flagOfSeveral{}
		for _, f := range owned {
			both.values = append(both.values, f.Value)
		}
		v = both
	}
	usage := first.Usage
	if own, ok := m.usage[name]; ok {
		usage = own
	}
	fs.Var(v, name, usage)
	fs.Lookup(name).DefValue = first.DefValue
	if def, ok := m.defaults[name]; ok {
		if err := v.Set(def); err != nil {
			panic(fmt.Sprintf("default of --%s: %v", name, err))
		}
		fs.Lookup(name).DefValue = def
	}
	if shown, ok := m.shown[name]; ok {
		fs.Lookup(name).DefValue = shown
	}
	for _, f := range owned {
		m.owners[name] = append(m.owners[name], f.owner)
	}
}

// Validate implements configurer: all mistakes, by the names that flags have here.
func (m *merged) Validate() error {
	var errs []error
	for _, p := range m.parts {
		errs = append(errs, m.validatePart(p))
	}
	return errors.Join(errs...)
}

func (m *merged) validatePart(p mergedPart) error {
	err := p.config.Validate()
	if err == nil {
		return nil
	}
	return errors.New(m.as(p.name, err.Error()))
}

// as makes a component's names of flags in a text the names that they have here.
func (m *merged) as(component, text string) string {
	for _, name := range m.apart {
		if strings.Contains(text, "--"+name) && slices.Contains(m.owners[component+"."+name], component) {
			whole := regexp.MustCompile("--" + regexp.QuoteMeta(name) + "($|[^a-z0-9-])")
			text = whole.ReplaceAllString(text, "--"+component+"."+name+"$1")
		}
	}
	return text
}

// flagOfSeveral sets a flag in each component that has it.
type flagOfSeveral struct{ values []flag.Value }

// Set implements flag.Value.
func (v *flagOfSeveral) Set(s string) error {
	for _, each := range v.values {
		if err := each.Set(s); err != nil {
			return err
		}
	}
	return nil
}

// String implements flag.Value.
func (v *flagOfSeveral) String() string {
	if v == nil || len(v.values) == 0 { // the zero value, which package flag asks for
		return ""
	}
	return v.values[0].String()
}

// IsBoolFlag tells package flag of booleans.
func (v *flagOfSeveral) IsBoolFlag() bool { return isBool(v.values[0]) }

// IsCumulative tells whether the flag appends.
func (v *flagOfSeveral) IsCumulative() bool { return repeatable(v.values[0]) }

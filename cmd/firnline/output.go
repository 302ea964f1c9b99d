package main

import (
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"

	"go.yaml.in/yaml/v3"
)

// outputConfig is the form in which a tool prints what it has found.
type outputConfig struct {
	Format string
	list   bool // of things in a table: the forms of those, too
}

const templateForm = "template="

// forms lists the values of the flag, and how they are said.
func (c *outputConfig) forms() (all []string, said string) {
	if c.list {
		return []string{"table", "wide", "json", "yaml", "csv"}, "table, wide, json, yaml, csv or template={{.Field}}"
	}
	return []string{"table", "json", "yaml"}, "table, json or yaml"
}

// RegisterFlags implements configurer.
func (c *outputConfig) RegisterFlags(fs *flag.FlagSet) {
	_, said := c.forms()
	usage := "Form of what is printed: " + said + "."
	if c.list {
		usage += " A template of Go's text/template is filled in for each entry, whose fields -o json shows in another spelling."
	}
	fs.StringVar(&c.Format, outputFlag, "table", usage)
}

// Validate implements configurer.
func (c *outputConfig) Validate() error {
	all, said := c.forms()
	if c.list && c.isTemplate() {
		_, err := c.template()
		return err
	}
	if !slices.Contains(all, c.Format) {
		return fmt.Errorf("--%s: want %s, got %q", outputFlag, said, c.Format)
	}
	return nil
}

// isTemplate knows a template with its prefix and, as Thanos takes it, without.
func (c *outputConfig) isTemplate() bool {
	return strings.HasPrefix(c.Format, templateForm) || strings.Contains(c.Format, "{{")
}

func (c *outputConfig) template() (*template.Template, error) {
	t, err := template.New("").Option("missingkey=error").Parse(strings.TrimPrefix(c.Format, templateForm))
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", outputFlag, err)
	}
	return t, nil
}

// print writes v for programs, or by table.
func (c *outputConfig) print(w io.Writer, v any, table func(io.Writer) error) error {
	switch c.Format {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		return writeYAML(w, v)
	}
	return table(w)
}

// printTable writes a table, or v, the list that it shows, for programs.
func (c *outputConfig) printTable(w io.Writer, v any, t *table) error {
	if c.isTemplate() {
		return c.fill(w, reflect.ValueOf(v))
	}
	return c.print(w, v, func(w io.Writer) error {
		if c.Format == "csv" {
			return t.csv(w)
		}
		return t.write(w, c.Format == "wide")
	})
}

// fill writes each entry of a list by the template.
func (c *outputConfig) fill(w io.Writer, list reflect.Value) error {
	t, err := c.template()
	if err != nil {
		return err
	}
	for i := range list.Len() {
		if err := t.Execute(w, list.Index(i).Interface()); err != nil {
			return usageError{fmt.Errorf("--%s: %w", outputFlag, err)}
		}
		fmt.Fprintln(w)
	}
	return nil
}

// writeYAML writes v with the names that it has in JSON.
func writeYAML(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var doc yaml.Node // JSON is YAML; the order of its keys stays
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return err
	}
	plain(&doc)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return err
	}
	return enc.Close()
}

// plain takes the style of JSON off a document.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		plain(c)
	}
}

// column is one of a table. A rare one is shown by wide alone, and by csv.
type column struct {
	name string
	rare bool
}

// table is what is printed as one, aligned, or as CSV.
type table struct {
	columns []column
	rows    [][]string
}

// columnsOf makes columns of names; those with a + in front are rare.
func columnsOf(names ...string) []column {
	var out []column
	for _, n := range names {
		name, rare := strings.CutPrefix(n, "+")
		out = append(out, column{name, rare})
	}
	return out
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer, wide bool) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cell func(i int) string) {
		var cells []string
		for i, c := range t.columns {
			if wide || !c.rare {
				cells = append(cells, cell(i))
			}
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	line(func(i int) string { return strings.ToUpper(t.columns[i].name) })
	for _, row := range t.rows {
		line(func(i int) string { return printable(row[i]) })
	}
	return tw.Flush()
}

func (t *table) csv(w io.Writer) error {
	enc := csv.NewWriter(w)
	var head []string
	for _, c := range t.columns {
		head = append(head, c.name)
	}
	if err := enc.Write(head); err != nil {
		return err
	}
	return enc.WriteAll(t.rows)
}

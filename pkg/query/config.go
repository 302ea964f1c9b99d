package query

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/query/internal/api"
	"github.com/firnline/firnline/pkg/query/internal/endpoint"
	"github.com/firnline/firnline/pkg/query/internal/engine"
	"github.com/firnline/firnline/pkg/query/internal/fanout"
	"github.com/firnline/firnline/pkg/query/internal/querier"
)

// Config is what an operator may set; RegisterFlags fills in the defaults.
type Config struct {
	Endpoints endpoint.Config
	Fanout    fanout.Config
	Select    querier.Config
	Engine    engine.Config
	API       api.Config

	ReplicaLabels  []string // tell the replicas of an HA pair apart
	SelectorLabels []string // name="value", announced beside those of endpoints
}

// RegisterFlags registers the flags and fills in their defaults.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	c.Endpoints.RegisterFlags(fs)
	c.Fanout.RegisterFlags(fs)
	c.Select.RegisterFlags(fs)
	c.Engine.RegisterFlags(fs)
	c.API.RegisterFlags(fs)
	fs.Func("query.replica-label", "Label that tells the replicas of an HA pair apart, and by which they are made one series. Repeatable, or several separated by commas. Requests can say otherwise by replicaLabels[] and dedup=false.", func(s string) error {
		for name := range strings.SplitSeq(s, ",") {
			c.ReplicaLabels = append(c.ReplicaLabels, strings.TrimSpace(name))
		}
		return nil
	})
	fs.Func("selector-label", `Label, as name="value", which this querier announces to queriers above it in addition to the external labels of its endpoints. Repeatable.`, func(s string) error {
		c.SelectorLabels = append(c.SelectorLabels, s)
		return nil
	})
}

// Validate returns every mistake at once.
func (c *Config) Validate() error {
	errs := []error{c.Endpoints.Validate(), c.Fanout.Validate(), c.Select.Validate(), c.Engine.Validate(), c.API.Validate()}
	for _, name := range c.ReplicaLabels {
		if !model.UTF8Validation.IsValidLabelName(name) {
			errs = append(errs, fmt.Errorf("--query.replica-label=%q: not a label name", name))
		}
	}
	selector, err := c.selector()
	errs = append(errs, err)
	for _, name := range c.ReplicaLabels {
		if selector.Has(name) {
			errs = append(errs, fmt.Errorf("label %s is both a --query.replica-label and a --selector-label", name))
		}
	}
	return errors.Join(errs...)
}

// selector parses the selector labels.
func (c *Config) selector() (labels.Labels, error) {
	var lset []labels.Label
	for _, s := range c.SelectorLabels {
		name, quoted, found := strings.Cut(s, "=")
		value, err := strconv.Unquote(quoted)
		if !found || err != nil || !model.UTF8Validation.IsValidLabelName(name) {
			return labels.EmptyLabels(), fmt.Errorf(`--selector-label=%s: must be name="value"`, s)
		}
		if slices.ContainsFunc(lset, func(l labels.Label) bool { return l.Name == name }) {
			return labels.EmptyLabels(), fmt.Errorf("--selector-label: %s is given twice", name)
		}
		lset = append(lset, labels.Label{Name: name, Value: value})
	}
	return labels.New(lset...), nil
}

package tenant

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"

	"github.com/firnline/firnline/pkg/content"
)

// LimitsConfig says where the limits of tenants stand.
type LimitsConfig struct {
	Content  string         `yaml:"limits_config"`
	File     string         `yaml:"limits_config_file"`
	Interval model.Duration `yaml:"limits_config_reload_timer"`

	flag string // as the operator knows it
}

// RegisterFlags fills in the defaults.
func (c *LimitsConfig) RegisterFlags(prefix string, fs *flag.FlagSet) {
	c.flag = prefix + "limits-config"
	c.Interval = model.Duration(5 * time.Second)
	fs.StringVar(&c.Content, c.flag, "", "Limits by tenant, as YAML; excludes the flag for a file.")
	fs.StringVar(&c.File, c.flag+"-file", "", "File with limits by tenant, as YAML. It is read again when it changes; one that can't be used leaves what was before in force.")
	fs.Var(&c.Interval, c.flag+"-reload-timer", "Time between looks whether the file of limits has changed.")
}

// Validate names what can't be right.
func (c *LimitsConfig) Validate() error {
	if c.Content != "" && c.File != "" {
		return fmt.Errorf("--%s and --%[1]s-file exclude each other; give one of them", c.flag)
	}
	if c.Interval <= 0 {
		return fmt.Errorf("--%s-reload-timer=%s: give more than 0", c.flag, c.Interval)
	}
	return nil
}

// Form is what a component's limits look like.
type Form[T any] struct {
	Component string   // in names of metrics: firnline_<component>_config_…
	Section   string   // the one key at the top of the file
	Defaults  func() T // what holds where the file says nothing. A *T that has Validate() error is asked.
}

// Limits is the limits of tenants as their file says now. A new version that
// can't be used leaves the one before in force and is reported once.
// All methods are safe to call at once.
type Limits[T any] struct {
	form  Form[T]
	log   *slog.Logger
	watch *content.Watch // nil: they never change
	set   atomic.Pointer[Set[T]]
}

// Set is one version of all tenants' limits. It never changes.
type Set[T any] struct {
	// Generation is 1 at the start and grows with each new content.
	Generation uint64

	text    string
	rest    one[T]
	tenants map[ID]one[T]
}

// one is what holds for one tenant, with the text that tells whether it changed.
type one[T any] struct {
	value *T
	text  string
}

// Of returns what holds for a tenant. The pointer stays the same from one
// version to the next as long as nothing changes for that tenant.
func (s *Set[T]) Of(id ID) *T {
	if o, ok := s.tenants[id]; ok {
		return o.value
	}
	return s.rest.value
}

// Listed tells whether the file names the tenant.
func (s *Set[T]) Listed(id ID) bool {
	_, ok := s.tenants[id]
	return ok
}

// Check tells what is wrong with limits that are to be read.
func (f Form[T]) Check(cfg LimitsConfig) error {
	text, source, err := content.Of(cfg.flag, cfg.Content, cfg.File)
	if err != nil {
		return err
	}
	_, _, err = f.parse(source, text)
	return err
}

// NewLimits reads the limits for the first time; here wrong ones are an error. Call Run to follow changes.
func NewLimits[T any](cfg LimitsConfig, form Form[T], log *slog.Logger, reg prometheus.Registerer) (*Limits[T], error) {
	l := &Limits[T]{form: form, log: log}
	if cfg.flag == "" {
		cfg.flag = "limits-config"
	}
	var err error
	l.watch, err = content.NewWatch(content.Watched{
		Flag: cfg.flag, Text: cfg.Content, File: cfg.File, Interval: time.Duration(cfg.Interval),
		What: "limits", Metrics: form.Component, Use: l.use,
	}, log, reg)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Fixed is limits that never change: the same for all tenants.
func Fixed[T any](value T) *Limits[T] {
	l := &Limits[T]{}
	l.set.Store(&Set[T]{Generation: 1, rest: one[T]{value: &value}})
	return l
}

// Get returns the version in force.
func (l *Limits[T]) Get() *Set[T] { return l.set.Load() }

// Of returns what holds for a tenant now.
func (l *Limits[T]) Of(id ID) *T { return l.Get().Of(id) }

// Run looks for changes until ctx is done.
func (l *Limits[T]) Run(ctx context.Context) error {
	if l.watch == nil {
		<-ctx.Done()
		return nil
	}
	return l.watch.Run(ctx)
}

// Reload reads the limits now.
func (l *Limits[T]) Reload(context.Context) error { return l.watch.Reload() }

func (l *Limits[T]) use(text []byte, source string) error {
	set, ignored, err := l.form.parse(source, text)
	if err != nil {
		return err
	}
	for _, key := range ignored {
		l.log.Warn("a key of the limits has no effect here", "key", key, "source", source)
	}
	l.replace(set)
	return nil
}

// replace puts a version in force that says something else than the one before.
func (l *Limits[T]) replace(set *Set[T]) {
	before := l.set.Load()
	if before == nil {
		set.Generation = 1
		l.set.Store(set)
		return
	}
	if before.text == set.text {
		return
	}
	set.Generation = before.Generation + 1
	set.rest = set.rest.orSame(before.rest)
	for id, o := range set.tenants {
		old, ok := before.tenants[id]
		if !ok {
			old = before.rest
		}
		set.tenants[id] = o.orSame(old)
	}
	l.set.Store(set)
}

// orSame keeps the pointer of what says the same.
func (o one[T]) orSame(before one[T]) one[T] {
	if o.text == before.text {
		return before
	}
	return o
}

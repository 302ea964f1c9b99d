package reload

import (
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/grafana/dskit/flagext"
	"github.com/prometheus/common/model"
)

// How Prometheus is told to read its configuration again.
const (
	MethodHTTP   = "http"
	MethodSignal = "signal"
)

// Config is what an operator may set of the reloader; RegisterFlags fills in
// the defaults.
type Config struct {
	ConfigFile    string              // may be gzipped; empty: none is watched
	OutputFile    string              // the configuration with its variables replaced; empty: not written
	RuleDirs      flagext.StringSlice // watched, not written
	WatchInterval model.Duration      // between readings of all content
	PollInterval  model.Duration      // between looks at sizes and times
	RetryInterval model.Duration
	Method        string // MethodHTTP or MethodSignal
	ProcessName   string // of the executable to signal
}

// RegisterFlags registers the flags --reloader.… and sets the defaults.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	*c = Config{
		WatchInterval: model.Duration(3 * time.Minute),
		PollInterval:  model.Duration(5 * time.Second),
		RetryInterval: model.Duration(5 * time.Second),
	}
	fs.StringVar(&c.ConfigFile, "reloader.config-file", "", "Configuration file of Prometheus to watch, plain or gzipped. Empty: no file is watched.")
	fs.StringVar(&c.OutputFile, "reloader.config-envsubst-file", "", "Where to write the watched configuration with each $(NAME) replaced by that environment variable. Prometheus must be started with this file.")
	fs.Var(&c.RuleDirs, "reloader.rule-dir", "Folder of rule files to watch. Can be repeated.")
	fs.Var(&c.WatchInterval, "reloader.watch-interval", "How often configuration and rules are read whole to find changes.")
	fs.Var(&c.PollInterval, "reloader.poll-interval", "How often sizes and times of the watched files are looked at, so that a change is found before the next watch interval.")
	fs.Var(&c.RetryInterval, "reloader.retry-interval", "How long to wait after a reload that failed before trying again.")
	fs.StringVar(&c.Method, "reloader.method", MethodHTTP, "How Prometheus is told to reload: http (needs its --web.enable-lifecycle) or signal (SIGHUP; needs the same process namespace).")
	fs.StringVar(&c.ProcessName, "reloader.process-name", "prometheus", "Name of the executable that gets the signal, with --reloader.method=signal.")
}

// Validate reports everything that is wrong, by flag.
func (c *Config) Validate() error {
	var errs []error
	if c.Method != MethodHTTP && c.Method != MethodSignal {
		errs = append(errs, fmt.Errorf("--reloader.method: %q is neither %s nor %s", c.Method, MethodHTTP, MethodSignal))
	}
	if c.Method == MethodSignal && c.ProcessName == "" {
		errs = append(errs, errors.New("--reloader.process-name: must be given with --reloader.method=signal"))
	}
	if c.OutputFile != "" && c.ConfigFile == "" {
		errs = append(errs, errors.New("--reloader.config-envsubst-file: needs --reloader.config-file, the file to read"))
	}
	if c.OutputFile != "" && c.OutputFile == c.ConfigFile {
		errs = append(errs, errors.New("--reloader.config-envsubst-file: must not be the file that is read, --reloader.config-file"))
	}
	for name, d := range map[string]model.Duration{
		"watch-interval": c.WatchInterval, "poll-interval": c.PollInterval, "retry-interval": c.RetryInterval,
	} {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("--reloader.%s: must be above 0", name))
		}
	}
	return errors.Join(errs...)
}

// watches tells whether there is anything to do.
func (c *Config) watches() bool { return c.ConfigFile != "" || len(c.RuleDirs) > 0 }

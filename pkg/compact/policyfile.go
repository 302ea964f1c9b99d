package compact

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"

	"github.com/firnline/firnline/pkg/compact/internal/policy"
	"github.com/firnline/firnline/pkg/content"
)

// policyFile is the retention in force.
type policyFile struct {
	*content.Watch
	policy atomic.Pointer[policy.Policy]
}

// newPolicyFile reads the policy for the first time; here a wrong one is an
// error. changed is called when another one comes in force.
func newPolicyFile(cfg Config, changed func(), log *slog.Logger, reg prometheus.Registerer) (*policyFile, error) {
	f := &policyFile{}
	var err error
	f.Watch, err = content.NewWatch(content.Watched{
		Flag: policyFlag, File: cfg.Retention.PolicyFile, Interval: time.Duration(cfg.Retention.PolicyInterval),
		What: "retention policy", Metrics: "compact_policy",
		Use: func(text []byte, _ string) error {
			p, err := cfg.Retention.parse(text, !cfg.DisableDownsampling)
			if err != nil {
				return err
			}
			f.policy.Store(p)
			changed()
			return nil
		},
	}, log, reg)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// policyFlag is what --retention.policy-file begins with.
const policyFlag = "retention.policy"

func (f *policyFile) get() *policy.Policy { return f.policy.Load() }

// policy reads the file, or makes a policy of the flags alone.
func (r *Retention) policy(downsample bool) (*policy.Policy, error) {
	text, _, err := content.Of(policyFlag, "", r.PolicyFile)
	if err != nil {
		return nil, err
	}
	return r.parse(text, downsample)
}

// parse makes the policy that the file's text and the flags say.
func (r *Retention) parse(text []byte, downsample bool) (p *policy.Policy, err error) {
	p = policy.New(r.tiers())
	if r.PolicyFile != "" {
		if len(bytes.TrimSpace(text)) == 0 { // half written, most likely: without its rules blocks would go
			return nil, fmt.Errorf("--%s-file: %s: is empty; write \"rules: []\" for no rules", policyFlag, r.PolicyFile)
		}
		if p, err = policy.Parse(r.PolicyFile, text, r.tiers()); err != nil {
			return nil, content.Name("--"+policyFlag+"-file", err)
		}
	}
	if !downsample {
		return p, nil
	}
	return p, p.Validate()
}

// validate names what can't be right.
func (r *Retention) validate(downsample bool) error {
	var errs []error
	for _, f := range []struct {
		name  string
		value model.Duration
	}{{"raw", r.Raw}, {"5m", r.FiveMinutes}, {"1h", r.OneHour}} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("--retention.resolution-%s=%s: give 0 for ever, or more", f.name, f.value))
		}
	}
	if r.PolicyInterval <= 0 {
		errs = append(errs, fmt.Errorf("--retention.policy-interval=%s: give more than 0", r.PolicyInterval))
	}
	_, err := r.policy(downsample)
	return errors.Join(append(errs, err)...)
}

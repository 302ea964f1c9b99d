package compact

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/prometheus/common/model"

	"github.com/firnline/firnline/pkg/compact/internal/policy"
	"github.com/firnline/firnline/pkg/content"
)

// policyFile is the retention in force. A file that can't be used leaves what it
// said before in force, and is reported once for each change.
type policyFile struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics

	mu struct {
		sync.Mutex
		policy *policy.Policy
		seen   string // fingerprint of the file as it was last tried
	}
}

// newPolicyFile reads the policy for the first time; here a wrong one is an error.
func newPolicyFile(cfg Config, log *slog.Logger, m *metrics) (*policyFile, error) {
	f := &policyFile{cfg: cfg, log: log, metrics: m}
	if err := f.reload(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *policyFile) get() *policy.Policy {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.policy
}

// reload reads the policy.
func (f *policyFile) reload() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.seen = f.fingerprint() // before reading, so that a change meanwhile is seen the next time
	return f.readLocked()
}

// look reads the policy if its file has changed. changed tells that another one
// is in force.
func (f *policyFile) look() (changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	print := f.fingerprint()
	if print == f.mu.seen {
		return false, nil
	}
	f.mu.seen = print
	if err := f.readLocked(); err != nil {
		f.log.Error("the changed retention policy can't be used; what it said before stays in force", "err", err)
		return false, nil
	}
	f.log.Info("retention policy is read again", "file", f.cfg.Retention.PolicyFile)
	return true, nil
}

func (f *policyFile) readLocked() error {
	p, err := f.cfg.Retention.policy(!f.cfg.DisableDownsampling)
	f.metrics.policyGood.Set(number(err == nil))
	if err != nil {
		return err
	}
	f.mu.policy = p
	return nil
}

// fingerprint tells versions of the file apart by time and size.
func (f *policyFile) fingerprint() string {
	if f.cfg.Retention.PolicyFile == "" {
		return ""
	}
	st, err := os.Stat(f.cfg.Retention.PolicyFile)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(st.ModTime().UnixNano(), st.Size())
}

// policy reads the file, or makes a policy of the flags alone.
func (r *Retention) policy(downsample bool) (p *policy.Policy, err error) {
	p = policy.New(r.tiers())
	if r.PolicyFile != "" {
		data, _, err := content.Of("retention.policy", "", r.PolicyFile)
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(data)) == 0 { // half written, most likely: without its rules blocks would go
			return nil, fmt.Errorf("%s: is empty; write \"rules: []\" for no rules", r.PolicyFile)
		}
		if p, err = policy.Parse(r.PolicyFile, data, r.tiers()); err != nil {
			return nil, err
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

package ingest

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/grafana/dskit/flagext"
	"github.com/prometheus/common/model"

	"github.com/firnline/firnline/pkg/ingest/internal/admit"
	"github.com/firnline/firnline/pkg/ingest/internal/forward"
	"github.com/firnline/firnline/pkg/ingest/internal/heads"
	"github.com/firnline/firnline/pkg/ingest/internal/intake"
	"github.com/firnline/firnline/pkg/ingest/internal/limits"
	"github.com/firnline/firnline/pkg/ingest/internal/replicate"
	"github.com/firnline/firnline/pkg/ingest/internal/ring"
	"github.com/firnline/firnline/pkg/ingest/internal/wire"
	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/tenant"
)

// Roles of a process.
const (
	roleBoth     = "both"
	roleRouter   = "router"
	roleIngester = "ingester"
)

// Config is what an operator may set; RegisterFlags fills in the defaults.
type Config struct {
	Role    string
	Tenant  tenant.Config
	Limits  tenant.LimitsConfig
	Admit   admit.Config
	Wire    wire.Config
	Intake  intake.Config
	Ring    ring.Config
	Owners  replicate.Config
	Heads   heads.Config
	Forward forward.Config
	Client  storeapi.ClientTLS  // of connections to other nodes
	Peers   flagext.StringSlice // names in certificates of those that write and read for all tenants

	// LeaveOnStop: a stop signal means that this node does not come back.
	LeaveOnStop  bool
	LeaveTimeout model.Duration // for flushing and shipping then
	AdminAPI     bool
}

// RegisterFlags sets the defaults and registers the flags, with Thanos' names
// where they mean the same.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	c.LeaveTimeout = model.Duration(30 * time.Minute)
	fs.StringVar(&c.Role, "ingest.role", roleBoth,
		"What this process does. router: takes requests and sends series to their owners. ingester: owns series. both: both.")
	c.Tenant.RegisterFlags("receive.", fs)
	fs.Var(&c.Peers, "receive.peer-certificate-name",
		"Common name or DNS name in the client certificate of another node, a Thanos router or a querier (repeatable). With --receive.tenant-certificate-field only these may call the gRPC services that write and read for all tenants, where gRPC asks for client certificates.")
	c.Limits.RegisterFlags("receive.", fs)
	c.Admit.RegisterFlags(fs)
	c.Wire.RegisterFlags(fs)
	c.Intake.RegisterFlags("receive.", fs)
	c.Ring.RegisterFlags(fs)
	c.Owners.RegisterFlags(fs)
	c.Heads.RegisterFlags(fs)
	c.Forward.RegisterFlags(fs)
	c.Client.RegisterFlags("remote-write.client-", "other nodes", fs)
	fs.BoolVar(&c.LeaveOnStop, "ingest.leave-on-stop", false,
		"On a stop signal leave for good: hand over to the other nodes, cut all samples into blocks, ship them and verify them in the bucket. For scaling in; leave it off for restarts.")
	fs.Var(&c.LeaveTimeout, "ingest.leave-timeout", "How long leaving may take. Data that is not shipped by then stays in --tsdb.path.")
	fs.BoolVar(&c.AdminAPI, "web.enable-admin-api", false,
		"Let the HTTP API cut heads into blocks (POST /api/v1/ingest/flush) and forget dead members of the ring.")
}

// Validate lists everything that is wrong.
func (c *Config) Validate() error {
	var errs []error
	if !slices.Contains([]string{roleBoth, roleRouter, roleIngester}, c.Role) {
		errs = append(errs, fmt.Errorf("--ingest.role=%s: give router, ingester or both", c.Role))
	}
	if c.LeaveTimeout <= 0 {
		errs = append(errs, errors.New("--ingest.leave-timeout: must be greater than 0"))
	}
	if err := c.Client.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("--remote-write.client-*: %w", err))
	}
	return errors.Join(append(errs, c.Tenant.Validate(), c.checkLimits(), c.Wire.Validate(),
		c.Admit.Validate(c.Wire.MostMemory(), max(2*c.Owners.MaxFrameBytes, c.Wire.MaxDecodedBytes)), c.Intake.Validate(),
		c.Ring.Validate(), c.Owners.Validate(), c.Heads.Validate(), c.Forward.Validate())...)
}

// checkLimits reads the file of limits, if it may be one.
func (c *Config) checkLimits() error {
	if err := c.Limits.Validate(); err != nil {
		return err
	}
	return limits.Form().Check(c.Limits)
}

// owns tells whether series live in this process.
func (c *Config) owns() bool { return c.Role != roleRouter }

// routes tells whether requests come to this process.
func (c *Config) routes() bool { return c.Role != roleIngester }

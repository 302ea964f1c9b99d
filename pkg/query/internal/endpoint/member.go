package endpoint

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/firnline/firnline/pkg/storeapi"
)

// member is a target with its connection and health, which Set's lock guards.
type member struct {
	target target
	conn   *connection // nil: the target has no address, or can't be dialled
	err    error       // why not
	health health
}

func newMember(t target, d dialer) *member {
	m := &member{target: t, err: t.err}
	if t.err == nil {
		m.conn, m.err = d.dial(t)
	}
	return m
}

// fits tells whether the member's connection can serve t.
func (m *member) fits(t target) bool {
	old := m.target
	return old.client == t.client && old.group == t.group && old.serviceConfig == t.serviceConfig &&
		(m.conn == nil) == (t.err != nil)
}

// become takes over what of t may change under a connection.
func (m *member) become(t target) {
	if m.conn == nil {
		m.err = t.err
	} else if !slices.Equal(m.target.addresses, t.addresses) {
		m.conn.update(t)
	}
	m.target = t
}

func (m *member) close() error {
	if m.conn == nil {
		return nil
	}
	return m.conn.close()
}

// ask is one health check.
func (m *member) ask(ctx context.Context, timeout time.Duration) (storeapi.Info, error) {
	if m.conn == nil {
		return storeapi.Info{}, m.err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	info, err := m.conn.client.Info(ctx)
	if err != nil {
		return info, explain(m.target.name, err, timeout)
	}
	return info, nil
}

// peer returns the member as fan-out sees it.
func (m *member) peer() Peer {
	p := Peer{Name: m.target.name, Info: m.health.info, Known: m.health.known}
	if m.conn != nil {
		p.Services = m.conn.services()
	}
	// The causes as text alone: a limit, say, that a health check has met is not the request's.
	switch {
	case m.conn == nil:
		p.Down = fmt.Errorf("%w: %s", storeapi.ErrUnavailable, m.err.Error())
	case m.health.err != nil && !m.target.strict:
		p.Down = fmt.Errorf("%w since %s: %s", storeapi.ErrUnavailable, m.health.since.UTC().Format(time.RFC3339), m.health.err.Error())
	}
	return p
}

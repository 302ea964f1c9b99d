package endpoint

import (
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/firnline/firnline/pkg/storeapi"
)

// groupServiceConfig spreads requests over a group and asks another member when one is gone.
const groupServiceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [{"name": [{}], "retryPolicy": {
    "maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"]}}]
}`

// connection is a dialled target.
type connection struct {
	conn      *grpc.ClientConn
	client    *storeapi.Client
	addresses *manual.Resolver // those of a group; nil: a single address
}

// dialer is what all connections have in common.
type dialer struct {
	retry   time.Duration // a lost connection is tried again after at most so long
	timeout time.Duration // of connecting
	extra   []grpc.DialOption
	metrics *storeapi.ClientMetrics
}

// dial makes a connection, which is set up in the background when first used.
func (d dialer) dial(t target) (*connection, error) {
	retry := d.retry
	opts := append(storeapi.DialOptions(t.client.Compression == "snappy"),
		grpc.WithTransportCredentials(t.client.Credentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: min(time.Second, retry), Multiplier: 1.6, Jitter: 0.2, MaxDelay: retry},
			MinConnectTimeout: d.timeout, // so that a health check ends first and tells that nobody answers
		}),
		grpc.WithDisableServiceConfig(), // none from DNS
	)
	opts = append(opts, d.extra...)
	c := &connection{}
	address := "passthrough:///" + t.name
	if t.group {
		c.addresses = manual.NewBuilderWithScheme("group")
		c.addresses.InitialState(resolverState(t.addresses))
		opts = append(opts, grpc.WithResolvers(c.addresses), grpc.WithDefaultServiceConfig(serviceConfigOf(t.spec)))
		address = "group:///" + t.name
	}
	conn, err := grpc.NewClient(address, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	c.conn, c.client = conn, storeapi.NewClient(conn, errorName(t.name), storeapi.WithMetrics(d.metrics))
	return c, nil
}

// errorName is what errors and warnings call an endpoint.
func errorName(name string) string { return "endpoint " + name }

// services returns all that the endpoint may answer.
func (c *connection) services() storeapi.Services {
	return storeapi.Services{
		Store: c.client, Rules: c.client, Targets: c.client, Metadata: c.client,
		Exemplars: c.client, Status: c.client, Query: c.client,
	}
}

// update tells a group its addresses.
func (c *connection) update(t target) {
	if c.addresses != nil {
		c.addresses.UpdateState(resolverState(t.addresses))
	}
}

func (c *connection) close() error { return c.conn.Close() }

func resolverState(addresses []string) grpcresolver.State {
	var s grpcresolver.State
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, grpcresolver.Endpoint{Addresses: []grpcresolver.Address{{Addr: a}}})
	}
	return s
}

func serviceConfigOf(s spec) string {
	if s.serviceConfig != "" {
		return s.serviceConfig
	}
	return groupServiceConfig
}

// validateServiceConfig lets gRPC judge a service config.
func validateServiceConfig(json string) error {
	if json == "" {
		return nil
	}
	c, err := dialer{retry: time.Second, timeout: time.Second}.dial(target{spec: spec{group: true, serviceConfig: json}, name: "validation"})
	if err != nil {
		return err
	}
	return c.close()
}

package fanout

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/firnline/firnline/pkg/storeapi"
)

// hopsKey is the gRPC metadata that lists the queriers a request has passed, by
// their ids, comma separated.
const hopsKey = "firnline-hops"

// hop adds this querier to the path of a request. A request that was here
// before, or that has passed too many, is refused: somewhere endpoints form a cycle.
func (f *Fanout) hop(ctx context.Context) (context.Context, error) {
	var path []string
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		for _, v := range md.Get(hopsKey) {
			path = append(path, strings.Split(v, ",")...)
		}
	}
	if slices.Contains(path, f.id) {
		return nil, fmt.Errorf("%w: the request came back to a querier that it had passed: queriers are endpoints of each other in a cycle; remove one --endpoint", storeapi.ErrLimit)
	}
	if len(path) >= f.cfg.MaxHops {
		return nil, fmt.Errorf("%w: the request passed %d queriers (--query.max-hops): are queriers endpoints of each other in a cycle?", storeapi.ErrLimit, len(path))
	}
	return metadata.AppendToOutgoingContext(ctx, hopsKey, strings.Join(append(path, f.id), ",")), nil
}

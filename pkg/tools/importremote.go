package tools

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// RemoteRead reads samples from another store by Prometheus' remote read.
type RemoteRead struct {
	URL              string
	Headers          map[string]string
	Timeout          time.Duration // of a request, which asks for two hours
	Matchers         []*labels.Matcher
	MinTime, MaxTime int64 // ms, both inclusive
	Log              *slog.Logger
	Told             func(done, all int, _ int64) // after each two hours, where not nil
}

// chunkedReadLimit is how long a frame of an answer may be.
const chunkedReadLimit = 50 << 20

// Blocks makes blocks of two hours in dir, of which memory holds one.
func (r *RemoteRead) Blocks(ctx context.Context, dir string) (out Imported, err error) {
	u, err := url.Parse(r.URL)
	if err != nil {
		return out, err
	}
	client, err := remote.NewReadClient("import", &remote.ClientConfig{
		URL: &config_util.URL{URL: u}, Timeout: model.Duration(r.Timeout), Headers: r.Headers,
		ChunkedReadLimit: chunkedReadLimit, AcceptedResponseTypes: remote.AcceptedResponseTypes,
	})
	if err != nil {
		return out, err
	}
	first, last := windowOf(r.MinTime), windowOf(r.MaxTime)
	t := newTally(int(last-first+1), r.Told)
	for window := first; window <= last; window++ {
		b := &blocks{dir: dir, log: r.Log, told: &out}
		if err := b.begin(ctx, window); err != nil {
			return out, err
		}
		err := r.window(ctx, client, b)
		if err := errors.Join(err, b.end(ctx)); err != nil {
			return out, fmt.Errorf("%s: %w", r.URL, err)
		}
		t.add(0)
	}
	return out, nil
}

// window reads the samples of one block.
func (r *RemoteRead) window(ctx context.Context, client remote.ReadClient, b *blocks) error {
	length := BlockLength.Milliseconds()
	from, to := max(b.window*length, r.MinTime), min((b.window+1)*length-1, r.MaxTime)
	q, err := remote.ToQuery(from, to, r.Matchers, nil)
	if err != nil {
		return err
	}
	set, err := client.Read(ctx, q, true)
	if err != nil {
		return err
	}
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		lset := s.Labels()
		it = s.Iterator(it)
		for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
			if t := it.AtT(); t < from || t > to {
				continue // whole chunks come
			}
			var v sample
			if vt == chunkenc.ValFloat {
				_, v.f = it.At()
			} else {
				_, v.h = it.AtFloatHistogram(nil)
			}
			if err := b.add(ctx, lset, it.AtT(), v); err != nil {
				return err
			}
		}
		if it.Err() != nil {
			return it.Err()
		}
	}
	return set.Err()
}

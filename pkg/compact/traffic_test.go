package compact_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/thanos-io/objstore"

	"github.com/firnline/firnline/pkg/block"
)

// traffic counts the bytes that come out of a bucket and go into it, by the
// object that they are of.
type traffic struct {
	block.Bucket
	mu struct {
		sync.Mutex
		requests int64
		copied   int64 // bytes, within the bucket: they don't move
		moved    map[flow]int64
		metas    map[ulid.ULID]*block.Meta // all that were ever visible
	}
}

// flow is one kind of object of a block, in one direction. What is of no block
// has the zero ULID.
type flow struct {
	block ulid.ULID
	what  string // "index", "chunks" or "rest"
	sent  bool
}

func newTraffic(bkt block.Bucket) *traffic {
	t := &traffic{Bucket: bkt}
	t.mu.moved, t.mu.metas = map[flow]int64{}, map[ulid.ULID]*block.Meta{}
	return t
}

// request counts one, and returns what its bytes are counted by.
func (t *traffic) request(name string, sent bool) flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.requests++
	f := flow{what: "rest", sent: sent}
	id, rel, ok := block.SplitName(name)
	if !ok {
		return f
	}
	f.block = id
	switch {
	case rel == block.IndexFilename:
		f.what = "index"
	case path.Dir(rel) == block.ChunksDirname:
		f.what = "chunks"
	}
	return f
}

func (t *traffic) add(f flow, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.moved[f] += n
}

// countedBody counts what is read of it.
type countedBody struct {
	io.ReadCloser
	traffic *traffic
	flow    flow
}

func (b countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.traffic.add(b.flow, int64(n))
	return n, err
}

func (t *traffic) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	f := t.request(name, false)
	r, err := t.Bucket.Get(ctx, name)
	return countedBody{r, t, f}, err
}

func (t *traffic) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	f := t.request(name, false)
	r, err := t.Bucket.GetRange(ctx, name, off, n)
	return countedBody{r, t, f}, err
}

func (t *traffic) GetIf(ctx context.Context, name, etag string) ([]byte, string, error) {
	f := t.request(name, false)
	body, newETag, err := t.Bucket.GetIf(ctx, name, etag)
	t.add(f, int64(len(body)))
	return body, newETag, err
}

func (t *traffic) PutIf(ctx context.Context, name string, body []byte, etag string) (string, error) {
	t.add(t.request(name, true), int64(len(body)))
	return t.Bucket.PutIf(ctx, name, body, etag)
}

func (t *traffic) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	f := t.request(name, true)
	if path.Base(name) == block.MetaFilename {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		m, err := block.ParseMeta(f.block, data)
		if err != nil {
			return err
		}
		t.mu.Lock()
		t.mu.metas[f.block] = m
		t.mu.Unlock()
		r = bytes.NewReader(data)
	}
	if size, err := objstore.TryToGetSize(r); err == nil {
		t.add(f, size)
	}
	return t.Bucket.Upload(ctx, name, r, opts...)
}

func (t *traffic) Copy(ctx context.Context, from, to string) error {
	t.request(to, true)
	attrs, err := t.Bucket.Attributes(ctx, from)
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.mu.copied += attrs.Size
	t.mu.Unlock()
	return t.Bucket.Copy(ctx, from, to)
}

// report makes metrics of all that was moved for a byte that was shipped, by the
// blocks that it is of: their resolution, length, and what of them.
func (t *traffic) report(b *testing.B, shipped int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	total, by := int64(0), map[string]int64{}
	for f, n := range t.mu.moved {
		total += n
		by[t.nameOf(f)] += n
	}
	for name, n := range by {
		b.ReportMetric(float64(n)/float64(shipped), name)
	}
	b.ReportMetric(float64(total)/float64(shipped), "moved/shipped")
	b.ReportMetric(float64(t.mu.copied)/float64(shipped), "copied/shipped")
	b.ReportMetric(float64(shipped)/1e6, "MB-shipped")
	b.ReportMetric(float64(t.mu.requests), "requests")
}

// nameOf is such as raw/2d/chunks/read.
func (t *traffic) nameOf(f flow) string {
	way := "read"
	if f.sent {
		way = "sent"
	}
	m := t.mu.metas[f.block]
	if m == nil || f.what == "rest" {
		return "rest/" + way
	}
	tier := "raw"
	if r := m.Resolution(); r > 0 {
		tier = model.Duration(time.Duration(r) * time.Millisecond).String()
	}
	length := model.Duration(time.Duration(m.MaxTime-m.MinTime) * time.Millisecond)
	return fmt.Sprintf("%s/%s/%s/%s", tier, length, f.what, way)
}

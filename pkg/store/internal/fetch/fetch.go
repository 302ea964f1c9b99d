// Package fetch reads ranges of objects: the one place under index and chunks
// that decides which ranged GETs are made, makes them, and checks what comes.
//
// planReads decides, Fetcher does. A Fetcher is safe for concurrent use and
// starts nothing that outlives a call. The bytes it returns belong to the caller.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/firnline/firnline/pkg/storeapi"
)

// Config bounds a Fetcher.
type Config struct {
	Gap         int64 // bytes; spans no further apart are read by one request
	MaxRead     int64 // bytes; longer ranges are read in parts at the same time
	PerRequest  int   // GETs at once for one call
	Concurrency int   // GETs at once for the whole Fetcher
}

// Bucket is what a Fetcher reads from.
type Bucket interface {
	objstore.BucketReader
}

// Fetcher reads spans of objects.
type Fetcher struct {
	cfg     Config
	bkt     Bucket
	slots   *semaphore.Weighted
	metrics *metrics
}

type metrics struct {
	reads   prometheus.Counter
	bytes   prometheus.Counter
	retries prometheus.Counter
	waiting prometheus.Gauge
}

// New makes a Fetcher over bkt.
func New(cfg Config, bkt Bucket, reg prometheus.Registerer) *Fetcher {
	return &Fetcher{cfg: cfg, bkt: bkt, slots: semaphore.NewWeighted(int64(cfg.Concurrency)), metrics: &metrics{
		reads: promauto.With(reg).NewCounter(prometheus.CounterOpts{
			Name: "firnline_store_fetch_reads_total", Help: "Ranged GETs made for queries."}),
		bytes: promauto.With(reg).NewCounter(prometheus.CounterOpts{
			Name: "firnline_store_fetch_bytes_total", Help: "Bytes read by ranged GETs for queries."}),
		retries: promauto.With(reg).NewCounter(prometheus.CounterOpts{
			Name: "firnline_store_fetch_retries_total", Help: "Ranges read a second time because the first answer was cut short or its checksum was wrong."}),
		waiting: promauto.With(reg).NewGauge(prometheus.GaugeOpts{
			Name: "firnline_store_fetch_waiting", Help: "Ranged GETs that wait for a free slot."}),
	}}
}

// Cost is what reading took.
type Cost struct {
	Reads int64 // ranged GETs
	Bytes int64
	Nanos int64 // wall time
}

// Add adds o to c.
func (c *Cost) Add(o Cost) {
	c.Reads += o.Reads
	c.Bytes += o.Bytes
	c.Nanos += o.Nanos
}

// Object is what is read, and how long it is.
type Object struct {
	Name      string
	SizeBytes int64
}

// Terms are what a reading has to keep to.
type Terms struct {
	Bytes *Budget // fetched
	Held  *Budget // in memory; who reads gives Cost.Bytes back, after an error too

	// Window is how many bytes the caller means to hold; 0 where it doesn't
	// matter. It bounds the gaps that are read over.
	Window int64
}

// gapShare is the part of a window, one in so many, that a gap read over may
// take: sparse spans must not fill it with what nobody asked for.
const gapShare = 8

// gap is up to how many bytes apart spans are read together.
func (f *Fetcher) gap(window int64) int64 {
	if window <= 0 {
		return f.cfg.Gap
	}
	return min(f.cfg.Gap, window/gapShare)
}

// Reach returns an empty sum of what readings with that Terms.Window hold.
func (f *Fetcher) Reach(window int64) Reach { return Reach{gap: f.gap(window)} }

// read fetches what covers want, which is sorted by Start, and counts it first.
func (f *Fetcher) read(ctx context.Context, t Terms, obj Object, want []Span) (*buffers, Cost, error) {
	began := time.Now()
	want = slices.Clone(want)
	for i := range want {
		want[i].End = min(want[i].End, obj.SizeBytes)
	}
	bufs := &buffers{reads: planReads(want, f.gap(t.Window))}
	var total int64
	for _, r := range bufs.reads {
		total += r.Len()
	}
	if err := t.Bytes.Take(total); err != nil {
		return nil, Cost{}, err
	}
	if err := t.Held.Take(total); err != nil {
		return nil, Cost{}, err
	}
	bufs.data = make([][]byte, len(bufs.reads))
	var parts int
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(f.cfg.PerRequest)
	for i, r := range bufs.reads {
		bufs.data[i] = make([]byte, r.Len())
		split := splitReads([]Span{r}, f.cfg.MaxRead)
		parts += len(split)
		for _, p := range split {
			g.Go(func() error {
				return f.get(ctx, obj.Name, p, bufs.data[i][p.Start-r.Start:p.End-r.Start])
			})
		}
	}
	err := g.Wait()
	return bufs, Cost{Reads: int64(parts), Bytes: total, Nanos: time.Since(began).Nanoseconds()}, err
}

// get fills buf with the bytes of s. An answer that is too short is asked for
// once more and then ErrCorrupt.
func (f *Fetcher) get(ctx context.Context, name string, s Span, buf []byte) error {
	f.metrics.waiting.Inc()
	err := f.slots.Acquire(ctx, 1)
	f.metrics.waiting.Dec()
	if err != nil {
		return err
	}
	defer f.slots.Release(1)
	n, err := f.getOnce(ctx, name, s, buf)
	if err == nil && n < len(buf) {
		f.metrics.retries.Inc()
		n, err = f.getOnce(ctx, name, s, buf)
	}
	if err == nil && n < len(buf) {
		err = fmt.Errorf("%w: object %s ends at offset %d, bytes up to %d expected",
			storeapi.ErrCorrupt, name, s.Start+int64(n), s.End)
	}
	return err
}

// getOnce returns how many bytes came; fewer than asked for is no error here.
func (f *Fetcher) getOnce(ctx context.Context, name string, s Span, buf []byte) (int, error) {
	f.metrics.reads.Inc()
	body, err := f.bkt.GetRange(ctx, name, s.Start, s.Len())
	if err != nil {
		return 0, Explain(ctx, f.bkt, Object{name, s.End}, s.Start, err)
	}
	defer func() { _ = body.Close() }() // read-only: nothing to lose
	n, err := io.ReadFull(body, buf)
	f.metrics.bytes.Add(float64(n))
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return n, nil
	}
	return n, fmt.Errorf("read %s at offset %d: %w", name, s.Start+int64(n), err)
}

// GoneError tells that an object is not in the bucket: its block has been removed, or is broken.
type GoneError struct {
	Object string
	Err    error // as the bucket has it; nil where a listing lacks the object
}

// Error implements error.
func (e *GoneError) Error() string {
	if e.Err == nil {
		return "object is not in the bucket: " + e.Object
	}
	return fmt.Sprintf("object is not in the bucket: %s: %v", e.Object, e.Err)
}

// Unwrap returns what the bucket has said.
func (e *GoneError) Unwrap() error { return e.Err }

// Explain gives a ranged read that failed its context, where err is as the
// bucket returned it. An object that is not there is a GoneError; one shorter than
// obj says, which providers tell in different ways, is ErrCorrupt.
func Explain(ctx context.Context, bkt Bucket, obj Object, at int64, err error) error {
	if bkt.IsObjNotFoundErr(err) {
		return &GoneError{obj.Name, err}
	}
	if ctx.Err() == nil {
		if attrs, aerr := bkt.Attributes(ctx, obj.Name); aerr == nil && attrs.Size < obj.SizeBytes {
			return fmt.Errorf("%w: object %s at offset %d: it has %d bytes, at least %d expected: %w",
				storeapi.ErrCorrupt, obj.Name, at, attrs.Size, obj.SizeBytes, err)
		}
	}
	return fmt.Errorf("read %s at offset %d: %w", obj.Name, at, err)
}

// buffers are the bytes of reads, which are sorted and don't overlap.
type buffers struct {
	reads []Span
	data  [][]byte
}

// slice returns the bytes of s as far as they were read: none when s starts beyond the object.
func (b *buffers) slice(s Span) []byte {
	i := sort.Search(len(b.reads), func(i int) bool { return b.reads[i].End > s.Start })
	if i == len(b.reads) || b.reads[i].Start > s.Start {
		return nil
	}
	data, from := b.data[i], s.Start-b.reads[i].Start
	return data[from:min(s.End-b.reads[i].Start, int64(len(data)))]
}

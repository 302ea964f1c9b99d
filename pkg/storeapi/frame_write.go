package storeapi

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of the messages on the hot path, which are written and read here
// without objects in between. storepb has the same messages; tests compare.
//
//	SeriesResponse │ series 1 │ warning 2 │ hints 3 │ batch 4 │   one of these
//	SeriesBatch    │ series 1 …                               │
//	Series         │ labels 1 … │ chunks 2 …                  │
//	Label          │ name 1 │ value 2 │
//	AggrChunk      │ min_time 1 │ max_time 2 │ raw 3 │ count 4 │ sum 5 │ min 6 │ max 7 │ counter 8 │
//	               │ firnline_replica 1001 │   to who asks for firnline_encodings only
//	Chunk          │ type 1 │ data 2 │ hash 3 │
const (
	fieldSeries, fieldWarning, fieldHints, fieldBatch      = 1, 2, 3, 4
	fieldBatchSeries                                       = 1
	fieldLabels, fieldChunks                               = 1, 2
	fieldName, fieldValue                                  = 1, 2
	fieldMinTime, fieldMaxTime, fieldRaw                   = 1, 2, 3
	fieldCount, fieldSum, fieldMin, fieldMax, fieldCounter = 4, 5, 6, 7, 8
	fieldReplica                                           = 1001
	fieldType, fieldData                                   = 1, 2
)

// maxFrameBytes is where a frame is sent although its batch is not full, and
// where a series is split. gRPC recommends messages of at most some MiB.
const maxFrameBytes = 1 << 20

// sink takes frames; a gRPC server stream is one.
type sink interface {
	SendMsg(m any) error
}

// frameWriter packs series into frames.
type frameWriter struct {
	to      sink
	batch   int             // series a frame; 1 or less: no batches
	accepts map[uint32]bool // encodings beyond 1 to 3 that the peer takes
	own     bool            // the peer is one of ours

	pending  *[]byte // encoded series of the open frame, from the pool
	count    int     // series in it
	recoded  []Chunk
	maxBytes int
}

func newFrameWriter(to sink, batch int64, encodings []uint32) *frameWriter {
	w := &frameWriter{to: to, batch: int(min(batch, 1<<20)), accepts: map[uint32]bool{}, own: len(encodings) > 0, maxBytes: maxFrameBytes}
	for _, e := range extraEncodings() {
		w.accepts[e] = slices.Contains(encodings, e)
	}
	return w
}

// series adds one series, sending what is full. A series with more chunks than
// a frame should have goes out as several with the same labels.
func (w *frameWriter) series(s Series) error {
	chunks, err := w.acceptable(s.Chunks)
	if err != nil {
		return fmt.Errorf("series %s: %w", s.Labels, err)
	}
	for first := true; first || len(chunks) > 0; first = false {
		n, size := 0, 0
		for n < len(chunks) && (n == 0 || size < w.maxBytes) {
			size += sizeNested(w.sizeChunk(&chunks[n]))
			n++
		}
		if err := w.part(s.Labels, chunks[:n], size); err != nil {
			return err
		}
		chunks = chunks[n:]
	}
	return nil
}

// part adds a series of chunks whose fields have chunkBytes bytes.
func (w *frameWriter) part(lset labels.Labels, chunks []Chunk, chunkBytes int) error {
	size := sizeLabels(lset) + chunkBytes
	if w.pending != nil && len(*w.pending)+size > w.maxBytes {
		if err := w.flush(); err != nil {
			return err
		}
	}
	b := w.room(size + 16)
	if w.batch > 1 {
		b = appendHead(b, fieldBatchSeries, size)
	}
	b = appendLabels(b, lset)
	for i := range chunks {
		b = w.appendChunk(b, &chunks[i])
	}
	*w.pending = b
	w.count++
	if w.count >= w.batch || len(b) >= w.maxBytes {
		return w.flush()
	}
	return nil
}

// room returns the bytes pending, with room for n more.
func (w *frameWriter) room(n int) []byte {
	const least = 4 << 10
	pool := mem.DefaultBufferPool()
	if w.pending == nil {
		w.pending = pool.Get(max(n, least))
		*w.pending = (*w.pending)[:0]
	}
	old := w.pending
	if need := len(*old) + n; need > cap(*old) {
		w.pending = pool.Get(max(need, 2*cap(*old)))
		*w.pending = append((*w.pending)[:0], *old...)
		pool.Put(old)
	}
	return *w.pending
}

// flush sends the open frame, if there is one. Warnings and hints must not overtake it.
func (w *frameWriter) flush() error {
	if w.pending == nil {
		return nil
	}
	field := protowire.Number(fieldSeries)
	if w.batch > 1 {
		field = fieldBatch
	}
	f := &outFrame{head: appendHead(nil, field, len(*w.pending)), body: w.pending}
	w.pending, w.count = nil, 0
	return w.to.SendMsg(f)
}

// close gives the memory of a frame that will not be sent back.
func (w *frameWriter) close() {
	if w.pending != nil {
		mem.DefaultBufferPool().Put(w.pending)
		w.pending = nil
	}
}

// acceptable returns the chunks in encodings that the peer takes.
func (w *frameWriter) acceptable(chunks []Chunk) ([]Chunk, error) {
	for i := range chunks {
		if w.takes(&chunks[i]) {
			continue
		}
		w.recoded = append(w.recoded[:0], chunks[:i]...)
		for _, c := range chunks[i:] {
			if w.takes(&c) {
				w.recoded = append(w.recoded, c)
				continue
			}
			plain, err := withoutStartTimestamps(c)
			if err != nil {
				return nil, err
			}
			w.recoded = append(w.recoded, plain...)
		}
		return SortChunks(w.recoded), nil
	}
	return chunks, nil
}

func (w *frameWriter) takes(c *Chunk) bool {
	if c.Aggr == nil {
		return w.takesEncoding(c.Raw)
	}
	for f := protowire.Number(fieldCount); f <= fieldCounter; f++ {
		if !w.takesEncoding(*c.Aggr.field(f)) {
			return false
		}
	}
	return true
}

func (w *frameWriter) takesEncoding(d Data) bool {
	if d.Encoding == chunkenc.EncNone || d.Encoding > chunkenc.EncFloatHistogram {
		return d.IsZero() || w.accepts[uint32(d.Encoding)]
	}
	return true
}

// outFrame is a frame to be sent: the head of its one field and the field's bytes.
type outFrame struct {
	head []byte
	body *[]byte
}

func (f *outFrame) buffers() mem.BufferSlice {
	return mem.BufferSlice{mem.SliceBuffer(f.head), mem.NewBuffer(f.body, mem.DefaultBufferPool())}
}

func (f *outFrame) decode([]byte) error { panic("storeapi: outFrame is only sent") }

func appendHead(b []byte, field protowire.Number, size int) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(size))
}

// sizeNested is the size of a length-delimited field with a number below 16.
func sizeNested(n int) int { return 1 + sizeVarint(uint64(n)) + n }

func sizeVarint(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

func sizeString(n int) int {
	if n == 0 {
		return 0
	}
	return sizeNested(n)
}

func sizeLabel(l labels.Label) int { return sizeString(len(l.Name)) + sizeString(len(l.Value)) }

func sizeLabels(lset labels.Labels) (n int) {
	lset.Range(func(l labels.Label) { n += sizeNested(sizeLabel(l)) })
	return n
}

func appendLabels(b []byte, lset labels.Labels) []byte {
	lset.Range(func(l labels.Label) {
		b = appendHead(b, fieldLabels, sizeLabel(l))
		b = appendString(b, fieldName, l.Name)
		b = appendString(b, fieldValue, l.Value)
	})
	return b
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return append(appendHead(b, field, len(s)), s...)
}

func sizeTime(t int64) int {
	if t == 0 {
		return 0
	}
	return 1 + sizeVarint(uint64(t))
}

func appendTime(b []byte, field protowire.Number, t int64) []byte {
	if t == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(t))
}

func (w *frameWriter) sizeChunk(c *Chunk) int {
	n := sizeTime(c.MinTime) + sizeTime(c.MaxTime)
	if w.own && c.Replica != 0 {
		n += protowire.SizeTag(fieldReplica) + protowire.SizeVarint(uint64(c.Replica))
	}
	if c.Aggr == nil {
		return n + sizeNested(sizeData(c.Raw))
	}
	for f := protowire.Number(fieldCount); f <= fieldCounter; f++ {
		if d := c.Aggr.field(f); !d.IsZero() {
			n += sizeNested(sizeData(*d))
		}
	}
	return n
}

func (w *frameWriter) appendChunk(b []byte, c *Chunk) []byte {
	b = appendHead(b, fieldChunks, w.sizeChunk(c))
	b = appendTime(b, fieldMinTime, c.MinTime)
	b = appendTime(b, fieldMaxTime, c.MaxTime)
	if w.own && c.Replica != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, fieldReplica, protowire.VarintType), uint64(c.Replica))
	}
	if c.Aggr == nil {
		return appendData(b, fieldRaw, c.Raw)
	}
	for f := protowire.Number(fieldCount); f <= fieldCounter; f++ {
		if d := c.Aggr.field(f); !d.IsZero() {
			b = appendData(b, f, *d)
		}
	}
	return b
}

func sizeData(d Data) int {
	n := sizeString(len(d.Bytes))
	if typ := wireEncoding(d.Encoding); typ != 0 {
		n += 1 + sizeVarint(typ)
	}
	return n
}

func appendData(b []byte, field protowire.Number, d Data) []byte {
	b = appendHead(b, field, sizeData(d))
	if typ := wireEncoding(d.Encoding); typ != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, fieldType, protowire.VarintType), typ)
	}
	if len(d.Bytes) > 0 {
		b = append(appendHead(b, fieldData, len(d.Bytes)), d.Bytes...)
	}
	return b
}

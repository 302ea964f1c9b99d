package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// The content encodings of write requests.
const (
	identityEncoding = "identity"
	snappyEncoding   = "snappy" // block format
	gzipEncoding     = "gzip"
	zstdEncoding     = "zstd"
)

const (
	// keptBody bounds the buffers that wait for the next request.
	keptBody = 4 << 20
	// firstRead is the most that is taken because of a declared size alone.
	firstRead = 64 << 10
	// zstdWindow is what RFC 8878 asks of every decoder. A frame that wants more is refused.
	zstdWindow = 8 << 20
	// smallWindow is enough for most requests: a sender that has all of a body before
	// it begins makes the body the window.
	smallWindow = 1 << 20
	// snappyRatio bounds what a byte of a snappy block can become: its densest
	// element makes 64 bytes of 3.
	snappyRatio = 22
)

// Body is a decompressed body in memory of the Decoder's.
type Body struct {
	b     []byte
	users atomic.Int32 // batches that point into it
	pool  *sync.Pool   // nil: the memory is the caller's
	room  room         // while it is read
}

// Grow asks for so many bytes more, before they are taken. Its error ends the reading.
type Grow func(bytes int64) error

// room is memory that was granted.
type room struct {
	grow Grow
	have int64
}

// reach asks for what is missing to so many bytes.
func (r *room) reach(bytes int64) error {
	if bytes <= r.have {
		return nil
	}
	if err := r.grow(bytes - r.have); err != nil {
		return err
	}
	r.have = bytes
	return nil
}

// Len is the body's size in bytes.
func (b *Body) Len() int { return len(b.b) }

// Free gives the memory back. Only who doesn't pass the Body to Decode calls it.
func (b *Body) Free() {
	if b.users.Add(-1) > 0 || b.pool == nil || cap(b.b) > keptBody {
		return
	}
	b.room = room{}
	b.pool.Put(b)
}

// Wrap makes a Body of decoded bytes that the caller has, and lends until the Batch is freed.
func (d *Decoder) Wrap(p []byte) (*Body, error) {
	if int64(len(p)) > d.cfg.MaxDecodedBytes {
		return nil, d.decodedTooLarge(fmt.Sprintf("%d bytes", len(p)))
	}
	b := &Body{b: p}
	b.users.Store(1)
	return b, nil
}

// buffer is an empty Body of the pool.
func (d *Decoder) buffer(grow Grow) *Body {
	b, ok := d.bodies.Get().(*Body)
	if !ok {
		b = &Body{pool: &d.bodies}
	}
	b.b, b.room = b.b[:0], room{grow: grow}
	b.users.Store(1)
	return b
}

// Declared refuses a body of so many bytes if it can never be taken.
func (d *Decoder) Declared(bytes int64) error {
	if bytes <= d.cfg.MaxBodyBytes {
		return nil
	}
	return refuse.Errorf(refuse.RequestTooLarge, "", "a body of %d bytes, at most %d are taken (%s); send smaller requests or raise it", bytes, d.cfg.MaxBodyBytes, flagBody)
}

// Body reads a request's body and decompresses it. contentLength is the
// declared size, -1 if there is none. What is sent and what becomes of it both count as
// memory; grow is asked for it as it comes, so that a body which inflates to much more than there
// is room for is not read to its end.
func (d *Decoder) Body(r io.Reader, contentEncoding string, contentLength int64, grow Grow) (*Body, error) {
	encoding := strings.ToLower(strings.TrimSpace(contentEncoding))
	switch encoding {
	case "", identityEncoding, snappyEncoding, gzipEncoding, zstdEncoding:
	default:
		return nil, refuse.Errorf(refuse.UnsupportedType, "", "content encoding %q is unknown: send snappy, gzip, zstd or identity", contentEncoding)
	}
	if err := d.Declared(contentLength); err != nil {
		return nil, err
	}
	sent := d.buffer(grow)
	err := sent.room.reach(contentLength)
	if err == nil {
		err = sent.fill(r, contentLength, d.cfg.MaxBodyBytes)
	}
	n := len(sent.b)
	switch {
	case errors.Is(err, errFull):
		sent.Free()
		return nil, refuse.Errorf(refuse.RequestTooLarge, "", "a body of more than %d bytes (%s); send smaller requests or raise it", d.cfg.MaxBodyBytes, flagBody)
	case err != nil:
		sent.Free()
		if refused, ok := errors.AsType[*refuse.Error](err); ok {
			return nil, refused // the reader, or who is asked for room, has a limit of its own
		}
		return nil, refuse.Errorf(refuse.BadRequest, "", "read the body at byte %d: %v", n, err)
	case encoding == "" || encoding == identityEncoding:
		if int64(n) > d.cfg.MaxDecodedBytes {
			sent.Free()
			return nil, d.decodedTooLarge(fmt.Sprintf("%d bytes", n))
		}
		return sent, nil
	}
	defer sent.Free()
	plain := d.buffer(grow)
	switch encoding {
	case snappyEncoding:
		err = d.unsnap(sent.b, plain)
	case gzipEncoding:
		err = d.gunzip(sent.b, plain)
	case zstdEncoding:
		err = d.unzstd(sent.b, plain)
	}
	if err != nil {
		plain.Free()
		return nil, err
	}
	return plain, nil
}

// errFull says that a reader has more than the limit.
var errFull = errors.New("more than the limit")

// fill reads all of r, at most limit bytes. The buffer grows with what has
// come, not with what is announced.
func (b *Body) fill(r io.Reader, announced, limit int64) error {
	if want := int(min(max(announced, 512), firstRead)); cap(b.b) < want {
		b.b = make([]byte, 0, want)
	}
	for {
		if len(b.b) == cap(b.b) {
			size := min(2*int64(cap(b.b)), limit+1)
			if announced > int64(len(b.b)) {
				size = min(size, announced+1) // one more to see the end
			}
			size = max(size, int64(len(b.b))+1)
			if err := b.room.reach(size - 1); err != nil {
				return err
			}
			b.b = append(make([]byte, 0, size), b.b...)
		}
		n, err := r.Read(b.b[len(b.b):cap(b.b)])
		b.b = b.b[:len(b.b)+n]
		if int64(len(b.b)) > limit {
			return errFull
		}
		if refused := b.room.reach(int64(len(b.b))); refused != nil {
			return refused
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (d *Decoder) decodedTooLarge(what string) error {
	return refuse.Errorf(refuse.RequestTooLarge, "", "%s decompressed, at most %d are taken (%s); send smaller requests or raise it", what, d.cfg.MaxDecodedBytes, flagDecoded)
}

// unsnap decodes a snappy block. Its header declares a size, which is believed
// only as far as the block can hold it.
func (d *Decoder) unsnap(src []byte, plain *Body) error {
	n, err := snappy.DecodedLen(src)
	switch {
	case err != nil:
		return refuse.Errorf(refuse.BadRequest, "", "malformed snappy at byte 0: the header declares no size")
	case int64(n) > d.cfg.MaxDecodedBytes:
		return d.decodedTooLarge(fmt.Sprintf("%d bytes", n))
	case n > snappyRatio*len(src):
		return refuse.Errorf(refuse.BadRequest, "", "malformed snappy at byte 0: %d bytes are declared, more than a block of %d can hold", n, len(src))
	}
	if err := plain.room.reach(int64(n)); err != nil {
		return err
	}
	if n > cap(plain.b) {
		plain.b = make([]byte, n)
	}
	if plain.b, err = snappy.Decode(plain.b[:cap(plain.b)], src); err != nil {
		return refuse.Errorf(refuse.BadRequest, "", "malformed snappy at byte %d: %v", snappyFault(src), err)
	}
	return nil
}

// inflaters are decompressors that wait for the next request. Those of zstd hold
// as much as the largest window that they take.
type inflaters struct{ gzip, zstd, zstdLarge sync.Pool }

func (d *Decoder) gunzip(src []byte, plain *Body) error {
	z, ok := d.inflate.gzip.Get().(*gzip.Reader)
	if !ok {
		z = new(gzip.Reader)
	}
	defer d.inflate.gzip.Put(z)
	if err := z.Reset(bytes.NewReader(src)); err != nil {
		return refuse.Errorf(refuse.BadRequest, "", "malformed gzip at byte 0: %v", err)
	}
	return d.inflated("gzip", z, plain)
}

func (d *Decoder) unzstd(src []byte, plain *Body) error {
	var h zstd.Header
	if err := h.Decode(src); err == nil && h.HasFCS && h.FrameContentSize > uint64(d.cfg.MaxDecodedBytes) {
		return d.decodedTooLarge(fmt.Sprintf("%d bytes", h.FrameContentSize))
	}
	if window := windowOf(&h); window <= smallWindow {
		if err := plain.room.grow(window); err != nil {
			return err
		}
		err := d.unzstdWithin(&d.inflate.zstd, smallWindow, src, plain)
		if !errors.Is(err, zstd.ErrWindowSizeExceeded) {
			return err
		}
		plain.b = plain.b[:0] // a frame behind the first has a larger one
	}
	if err := plain.room.grow(zstdWindow); err != nil {
		return err
	}
	err := d.unzstdWithin(&d.inflate.zstdLarge, zstdWindow, src, plain)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return refuse.Errorf(refuse.RequestTooLarge, "", "a zstd frame with a window above %d bytes", zstdWindow)
	}
	return err
}

// windowOf is what a frame makes a decompressor remember; the most there may be if it is not a frame's header.
func windowOf(h *zstd.Header) int64 {
	switch {
	case h.Skippable:
		return zstdWindow
	case h.SingleSegment:
		return int64(min(h.FrameContentSize, zstdWindow))
	}
	return int64(min(h.WindowSize, zstdWindow))
}

// unzstdWithin decompresses frames whose windows are not above a size.
func (d *Decoder) unzstdWithin(pool *sync.Pool, window uint64, src []byte, plain *Body) error {
	z, ok := pool.Get().(*zstd.Decoder)
	if !ok {
		var err error
		z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
		if err != nil {
			return fmt.Errorf("make a zstd decoder: %w", err)
		}
	}
	defer func() {
		_ = z.Reset(nil) // it lets go of src
		pool.Put(z)
	}()
	if err := z.Reset(bytes.NewReader(src)); err != nil {
		return refuse.Errorf(refuse.BadRequest, "", "malformed zstd at byte 0: %v", err)
	}
	return d.inflated("zstd", z, plain)
}

// inflated reads a decompressor to its end.
func (d *Decoder) inflated(name string, r io.Reader, plain *Body) error {
	err := plain.fill(r, -1, d.cfg.MaxDecodedBytes)
	if refused, ok := errors.AsType[*refuse.Error](err); ok {
		return refused // who is asked for room has none
	}
	switch {
	case errors.Is(err, errFull):
		return d.decodedTooLarge(fmt.Sprintf("more than %d bytes", d.cfg.MaxDecodedBytes))
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return err
	case err != nil:
		return refuse.Errorf(refuse.BadRequest, "", "malformed %s behind byte %d of what it holds: %v", name, len(plain.b), err)
	}
	return nil
}

// borrow makes a string of a part of the body without a copy.
func borrow(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

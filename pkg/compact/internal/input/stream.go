package input

import (
	"context"
	"math"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/layout"
)

const (
	// headroom is kept free before each window, so that a record that began in
	// the one before can be put together without another buffer. A longer one
	// takes a larger buffer for once.
	headroom = 32 << 10

	// A jump is followed by a read of this many bytes, and each read after it is
	// so many times as long, up to the window: what is read in vain is about
	// as long as what was wanted, and a long run soon goes by whole windows.
	firstRead  = 64 << 10
	readGrowth = 4

	// A gap up to this long is read through: a request costs more.
	longestGap = 256 << 10
)

// stream reads an object forward by windows. Invariant: data are the bytes of
// the object from offset at on; next, where there is one, reads on behind them.
type stream struct {
	obj    *block.RangeReader
	end    int64 // of what is read
	window int64

	at      int64
	data    []byte
	hold    []byte // the buffer that data is in
	spare   []byte // one to read into
	next    *fetch
	length  int64 // of the next read
	trigger int64 // an offset; whoever gets there has the next window read
}

// fetch is one read in the background.
type fetch struct {
	at     int64
	buf    []byte // headroom, then what is read
	err    error
	left   bool // the call that began it has left, which is why there is an error
	cancel context.CancelFunc
	done   chan struct{} // closed when all of this is there
}

// newStream reads obj from offset at to end by windows. It asks for nothing yet.
func newStream(obj *block.RangeReader, at, end, window int64) *stream {
	s := &stream{obj: obj, end: end, window: window}
	s.jump(at, window)
	return s
}

// jump goes on at another offset, by a read of length bytes.
func (s *stream) jump(at, length int64) {
	s.close()
	s.at, s.data, s.length, s.trigger = at, nil, min(length, s.window), math.MaxInt64
}

// begin has the first window read, for who will ask for it before long.
func (s *stream) begin(ctx context.Context) {
	if s.next == nil && len(s.data) == 0 && s.at < s.end {
		s.next = s.fetch(ctx)
	}
}

// close ends what is read ahead, and waits for it. The stream can go on.
func (s *stream) close() {
	if s.next == nil {
		return
	}
	s.next.cancel()
	<-s.next.done
	s.spare, s.next = s.next.buf, nil
}

// release is close for good.
func (s *stream) release() {
	s.jump(s.end, 0)
	s.hold, s.spare = nil, nil
}

// reach is how far the stream has got, with what is being read ahead.
func (s *stream) reach() int64 {
	if s.next != nil {
		return s.next.at + int64(len(s.next.buf)) - s.headroom()
	}
	return s.at + int64(len(s.data))
}

func (s *stream) headroom() int64 { return min(headroom, s.window) }

// peek returns the bytes at offset off, at least n of them unless the stream
// ends before. They are valid until the next call. It reads on to where off is,
// unless that lies behind or far ahead: then it begins anew there.
func (s *stream) peek(ctx context.Context, off int64, n int64) ([]byte, error) {
	if i := off - s.at; i >= 0 && i+n <= int64(len(s.data)) && off < s.trigger {
		return s.data[i:], nil
	}
	return s.slide(ctx, off, n)
}

func (s *stream) slide(ctx context.Context, off, n int64) ([]byte, error) {
	if off < 0 || off >= s.end {
		return nil, nil
	}
	n = min(n, s.end-off)
	if off < s.at || off >= s.reach()+min(s.length, longestGap) {
		s.jump(off, firstRead)
	}
	if off >= s.trigger {
		s.trigger = math.MaxInt64
		s.next = s.fetch(ctx)
	}
	for off+n > s.at+int64(len(s.data)) {
		if err := s.advance(ctx, off); err != nil {
			return nil, err
		}
	}
	return s.data[off-s.at:], nil
}

// advance makes the next window the current one, with the bytes from keep on of
// the one before in front of it.
func (s *stream) advance(ctx context.Context, keep int64) error {
	f := s.next
	if f == nil {
		f = s.fetch(ctx)
		s.next = f
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	f.cancel()
	s.next, s.trigger = nil, math.MaxInt64
	if f.err != nil {
		s.spare = f.buf
		if f.left && ctx.Err() == nil {
			return nil // this call has not: it comes again
		}
		return f.err
	}
	tail := s.data[min(max(keep-s.at, 0), int64(len(s.data))):]
	s.adopt(f, tail)
	if s.reach() < s.end {
		s.trigger = f.at + int64(len(f.buf)-int(s.headroom()))/4
	}
	return nil
}

// adopt makes the bytes of f current, behind tail.
func (s *stream) adopt(f *fetch, tail []byte) {
	from := int(s.headroom()) - len(tail)
	buf := f.buf
	if from < 0 { // a record longer than the headroom
		buf = make([]byte, len(tail)+len(f.buf)-int(s.headroom()))
		copy(buf[len(tail):], f.buf[s.headroom():])
		s.spare, from = f.buf, 0
	} else {
		s.spare = s.hold
	}
	copy(buf[from:], tail)
	s.at, s.data, s.hold = f.at-int64(len(tail)), buf[from:], buf
	if int64(cap(s.spare)) > s.window+s.headroom() || s.reach() >= s.end { // was for one long record, or there is no more to read
		s.spare = nil
	}
}

// fetch begins to read what comes behind data.
func (s *stream) fetch(ctx context.Context) *fetch {
	at := s.at + int64(len(s.data))
	n := min(s.length, s.end-at)
	s.length = min(s.length*readGrowth, s.window)
	size := s.headroom() + n
	if int64(cap(s.spare)) < size {
		s.spare = make([]byte, size)
	}
	f := &fetch{at: at, buf: s.spare[:size], done: make(chan struct{})}
	s.spare = nil
	ctx, f.cancel = context.WithCancel(ctx)
	go func() {
		defer close(f.done)
		f.err = s.obj.Read(ctx, f.at, f.buf[s.headroom():])
		f.left = f.err != nil && ctx.Err() != nil
	}()
	return f
}

// record returns the content of the record at offset off, and the length of the
// whole. bad is what is wrong with its bytes, err what with reading them.
func (s *stream) record(ctx context.Context, off int64, kind layout.Frame) (content []byte, size int64, bad, err error) {
	b, err := s.peek(ctx, off, layout.HeadBytes)
	for err == nil {
		content, size, bad = kind.Content(b)
		if content != nil || bad != nil {
			return content, size, bad, nil
		}
		if off+size > s.end {
			return nil, 0, layout.ErrLength, nil
		}
		b, err = s.peek(ctx, off, size)
	}
	return nil, 0, nil, err
}

package output

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// Sizes of buffers in bytes: large for what is written and read once, in order.
const (
	segmentBuffer = 1 << 20
	fileBuffer    = 256 << 10
)

// handle is what is asked of an open file.
type handle interface {
	io.Writer
	io.ReaderAt
	Close() error
}

// opener creates a file for writing and reading back. Tests put a full disk in
// place of createFile.
type opener func(path string) (handle, error)

func createFile(path string) (handle, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
}

// file is appended to through a buffer: callers ask for room and append to buf.
type file struct {
	handle
	path    string
	max     int64 // length it must not exceed, bytes
	buf     []byte
	flushed int64  // bytes written, buf comes behind them
	total   uint32 // their checksum

	summing bool // a section is being summed up: sum is that of it up to buf[:summed]
	sum     uint32
	summed  int
}

// newFile creates a file. buf is used as its buffer.
func newFile(open opener, path string, maxBytes int64, buf []byte) (*file, error) {
	h, err := open(path)
	if err != nil {
		return nil, err
	}
	return &file{handle: h, path: path, max: maxBytes, buf: buf[:0]}, nil
}

// newTempFile creates a file that is read back and removed before the block is done.
func newTempFile(open opener, path string) (*file, error) {
	return newFile(open, path, maxIndexBytes, make([]byte, 0, fileBuffer))
}

// pos is the length of the file, buffer included.
func (f *file) pos() int64 { return f.flushed + int64(len(f.buf)) }

// room makes place for n more bytes in buf.
func (f *file) room(n int) error {
	if cap(f.buf)-len(f.buf) >= n {
		return nil
	}
	if err := f.flush(); err != nil {
		return err
	}
	if cap(f.buf) < n {
		f.buf = make([]byte, 0, n)
	}
	return nil
}

func (f *file) flush() error {
	if f.pos() > f.max {
		return fmt.Errorf("%s: %w: more than %d bytes", f.path, ErrTooLarge, f.max)
	}
	if f.summing {
		f.sum = checksum(f.sum, f.buf[f.summed:])
		f.summed = 0
	}
	n, err := f.Write(f.buf)
	f.flushed += int64(n)
	f.total = checksum(f.total, f.buf)
	f.buf = f.buf[:0]
	return err
}

func (f *file) append(b []byte) error {
	if err := f.room(len(b)); err != nil {
		return err
	}
	f.buf = append(f.buf, b...)
	return nil
}

// pad appends zeros up to a multiple of align, a power of two.
func (f *file) pad(align int64) error {
	var zeros [seriesAlign]byte
	return f.append(zeros[:-f.pos()&(align-1)])
}

// copyFrom appends the next n bytes of r.
func (f *file) copyFrom(r *reader, n int64) error {
	for n > 0 {
		b, err := r.some(n)
		if err != nil {
			return err
		}
		if err := f.append(b); err != nil {
			return err
		}
		n -= int64(len(b))
	}
	return nil
}

// startSum begins the checksum of a section, which is what is appended from here on.
func (f *file) startSum() { f.summing, f.sum, f.summed = true, 0, len(f.buf) }

// endSum returns the checksum since startSum.
func (f *file) endSum() uint32 {
	f.summing = false
	return checksum(f.sum, f.buf[f.summed:])
}

// finish writes the rest and closes the file.
func (f *file) finish() error { return errors.Join(f.flush(), f.Close()) }

// written is what is known of a file that is finished.
type written struct {
	size int64
	sum  uint32
}

func (f *file) written() written { return written{size: f.flushed, sum: f.total} }

// readBack returns a reader of a temporary file, to which nothing is appended any more.
func (f *file) readBack() (*reader, error) {
	if err := f.flush(); err != nil {
		return nil, err
	}
	return &reader{from: f.handle, end: f.flushed, want: f.total, mem: make([]byte, fileBuffer)}, nil
}

// remove closes a temporary file and takes it away.
func (f *file) remove() error { return errors.Join(f.Close(), os.Remove(f.path)) }

// reader reads a stretch of a file from front to back. The last bytes come only
// if all have the checksum that they were written with.
type reader struct {
	from      io.ReaderAt
	off, end  int64  // what was not read yet
	buf       []byte // what was read and not taken yet, in mem
	mem       []byte
	sum, want uint32
}

// peek returns the next n bytes, fewer only at the end. They are valid until
// the next call of peek or some.
func (r *reader) peek(n int) ([]byte, error) {
	if len(r.buf) < n && r.off < r.end {
		if err := r.fill(n); err != nil {
			return nil, err
		}
	}
	return r.buf[:min(n, len(r.buf))], nil
}

// skip passes over n bytes that peek has returned.
func (r *reader) skip(n int) { r.buf = r.buf[n:] }

// take returns the next n bytes, valid as those of peek.
func (r *reader) take(n int) ([]byte, error) {
	b, err := r.peek(n)
	if err != nil {
		return nil, err
	}
	if len(b) < n {
		return nil, io.ErrUnexpectedEOF
	}
	r.skip(n)
	return b, nil
}

// some returns at least one and at most n of the next bytes, valid as those of peek.
func (r *reader) some(n int64) ([]byte, error) {
	if _, err := r.peek(1); err != nil {
		return nil, err
	}
	return r.take(int(max(1, min(n, int64(len(r.buf))))))
}

// done tells whether all was taken.
func (r *reader) done() bool { return len(r.buf) == 0 && r.off == r.end }

// fill reads on until the memory is full, which holds at least n bytes.
func (r *reader) fill(n int) error {
	if len(r.mem) < n {
		r.mem = make([]byte, n)
	}
	kept := copy(r.mem, r.buf)
	want := r.mem[kept:]
	want = want[:min(int64(len(want)), r.end-r.off)]
	if _, err := r.from.ReadAt(want, r.off); err != nil {
		return fmt.Errorf("read back at offset %d: %w", r.off, err)
	}
	r.off += int64(len(want))
	r.buf = r.mem[:kept+len(want)]
	r.sum = checksum(r.sum, want)
	if r.off == r.end && r.sum != r.want {
		return errDamaged
	}
	return nil
}

// errDamaged tells that a temporary file was not read back as it was written.
var errDamaged = errors.New("temporary file has changed on the disk")

// checksum continues a CRC-32C, the one that blocks use throughout.
func checksum(sum uint32, b []byte) uint32 {
	return crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), b)
}

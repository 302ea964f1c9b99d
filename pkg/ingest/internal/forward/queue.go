package forward

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/firnline/firnline/pkg/block"
)

// segmentBytes is the size of a queue's files, in which it is also cut when it is too long.
const segmentBytes = 4 << 20

// queue is a log on disk with one reader. A record that was appended is read
// after a restart too; some that were read just before may come again.
//
// Its folder has the segments of a write-ahead log of the TSDB (checksummed
// pages, a torn end is skipped) and the file "sent": how far the reader is.
type queue struct {
	dir      string
	maxBytes int64
	log      *slog.Logger
	lost     func(records [][]byte) // told of what is cut off before it was read

	wl    *wlog.WL
	more  chan struct{} // has one element while there may be something to read
	trims sync.Mutex    // one at a time

	reader  reader       // of the one goroutine that reads
	reading atomic.Int64 // its segment, for those who cut
}

// position is where reading goes on: after so many records of a segment.
type position struct {
	Segment int `json:"segment"`
	Records int `json:"records"`
}

// rewind has reading begin again at a position that was read before.
func (q *queue) rewind(to position) {
	q.closeSegment()
	q.reader.at = to
}

type reader struct {
	at      position
	file    io.ReadCloser
	records *wlog.LiveReader
}

const sentFile = "sent"

// openQueue opens a queue or makes an empty one.
func openQueue(dir string, maxBytes int64, log *slog.Logger, lost func([][]byte)) (*queue, error) {
	wl, err := wlog.NewSize(log, prometheus.NewRegistry(), dir, segmentBytes, compression.Snappy) // metrics of its own are of no use here
	if err != nil {
		return nil, fmt.Errorf("open queue %s: %w", dir, err)
	}
	q := &queue{dir: dir, maxBytes: maxBytes, log: log, lost: lost, wl: wl, more: make(chan struct{}, 1)}
	q.more <- struct{}{}
	body, err := os.ReadFile(filepath.Join(dir, sentFile))
	if err == nil {
		err = json.Unmarshal(body, &q.reader.at)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("where the queue was left is not known; it is sent from its beginning", "dir", dir, "err", err)
		q.reader.at = position{}
	}
	return q, nil
}

// append adds a record and cuts off the oldest segments if there are too many.
func (q *queue) append(rec []byte) error {
	if err := q.wl.Log(rec); err != nil {
		return fmt.Errorf("queue %s: %w", q.dir, err)
	}
	select {
	case q.more <- struct{}{}:
	default:
	}
	return q.trim()
}

func (q *queue) trim() error {
	if !q.trims.TryLock() {
		return nil // somebody is at it
	}
	defer q.trims.Unlock()
	for {
		first, last, err := wlog.Segments(q.dir)
		if err != nil || int64(last-first+1)*segmentBytes <= q.maxBytes {
			return err
		}
		q.lost(q.unread(first))
		if err := q.wl.Truncate(first + 1); err != nil {
			return fmt.Errorf("cut queue %s: %w", q.dir, err)
		}
	}
}

// unread lists the heads of the records of a segment that is about to go, for
// counting. If the reader is in it, some are counted although they are sent.
func (q *queue) unread(segment int) [][]byte {
	if int64(segment) < q.reading.Load() {
		return nil
	}
	s, err := wlog.OpenReadSegment(wlog.SegmentName(q.dir, segment))
	if err != nil {
		return nil
	}
	r := wlog.NewReader(wlog.NewSegmentBufReader(s))
	defer s.Close()
	var out [][]byte
	for r.Next() {
		out = append(out, append([]byte(nil), r.Record()[:min(len(r.Record()), maxHeaderBytes)]...))
	}
	return out
}

// next returns the next record; it is valid until the next call. ok is false if
// there is none now.
func (q *queue) next() (rec []byte, ok bool, err error) {
	r := &q.reader
	for {
		if r.file == nil {
			if ok, err := q.openSegment(); !ok {
				return nil, false, err
			}
		}
		if r.records.Next() {
			r.at.Records++
			return r.records.Record(), true, nil
		}
		if err := r.records.Err(); err != nil && !errors.Is(err, io.EOF) {
			q.log.Warn("the rest of a segment of the queue can't be read and is left out", "dir", q.dir, "segment", r.at.Segment, "err", err)
		} else if _, last, err := wlog.Segments(q.dir); err != nil || last <= r.at.Segment {
			return nil, false, err // it may grow
		} else if r.records.Next() { // it may have grown before the next segment began
			r.at.Records++
			return r.records.Record(), true, nil
		}
		q.closeSegment()
		r.at = position{Segment: r.at.Segment + 1}
	}
}

// openSegment opens the segment at the reader's position, or the first one after it that there is.
func (q *queue) openSegment() (bool, error) {
	r := &q.reader
	first, last, err := wlog.Segments(q.dir)
	if err != nil || last < r.at.Segment {
		return false, err
	}
	if first > r.at.Segment {
		r.at = position{Segment: first}
	}
	f, err := os.Open(wlog.SegmentName(q.dir, r.at.Segment))
	if errors.Is(err, fs.ErrNotExist) {
		r.at = position{Segment: r.at.Segment + 1} // cut off just now
		return q.openSegment()
	}
	if err != nil {
		return false, fmt.Errorf("read queue: %w", err)
	}
	q.reading.Store(int64(r.at.Segment))
	r.file, r.records = f, wlog.NewLiveReader(q.log, wlog.NewLiveReaderMetrics(nil), f)
	for range r.at.Records {
		if !r.records.Next() {
			break
		}
	}
	return true, nil
}

func (q *queue) closeSegment() {
	if q.reader.file != nil {
		_ = q.reader.file.Close() // opened for reading
	}
	q.reader.file, q.reader.records = nil, nil
}

// wait returns when there may be more to read, or ctx is done.
func (q *queue) wait(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-q.more:
	}
}

// done notes that all before a position is taken care of, and removes it.
func (q *queue) done(before position) error {
	body, err := json.Marshal(before)
	if err != nil {
		return fmt.Errorf("encode position: %w", err)
	}
	if err := block.WriteFile(filepath.Join(q.dir, sentFile), body); err != nil {
		return fmt.Errorf("note position: %w", err)
	}
	q.trims.Lock()
	defer q.trims.Unlock()
	if err := q.wl.Truncate(before.Segment); err != nil {
		return fmt.Errorf("shorten queue %s: %w", q.dir, err)
	}
	return nil
}

// bytes is about how much waits.
func (q *queue) bytes() int64 {
	n, err := q.wl.Size()
	if err != nil {
		return 0
	}
	return n
}

// close ends writing and reading.
func (q *queue) close() error {
	q.closeSegment()
	return q.wl.Close()
}

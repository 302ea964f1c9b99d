package notes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
)

// A segment is a file of a Log, <dir>/<number>.log: a head and one record after
// the other, each with the exemplars of one series. A record that is cut short
// or does not have its checksum ends the file; opening a Log cuts it off.
//
//	┌─ head ──────────────────────────────┐
//	│ magic <4b> F1 9A 40 6C │ version 1  │
//	├─ record ────────────────────────────┴───────────────────────────────┐
//	│ length <4b> │ CRC32C of the payload <4b> │ payload <length>:         │
//	│                labels │ exemplars <uvarint> × ( … ), as in a note,   │
//	│                the first time counted from 0                         │
//	└─────────────────────────────────────────────────────────────────────┘
type segment struct {
	path   string
	number uint64
	size   int64 // of head and whole records
	bounds
}

const (
	segmentMagic   = 0xF19A406C
	segmentVersion = 1
	segmentHead    = 5
	recordHead     = 8
	maxRecordBytes = 1 << 20
	segmentSuffix  = ".log"
)

// bounds say what exemplars there are.
type bounds struct {
	mint, maxt int64 // ms, both inclusive; mint above maxt: none
	count      int
}

func (b *bounds) add(list []exemplar.Exemplar) {
	for _, e := range list {
		b.mint, b.maxt = min(b.mint, e.Ts), max(b.maxt, e.Ts)
	}
	b.count += len(list)
}

func (b *bounds) merge(o bounds) {
	b.mint, b.maxt, b.count = min(b.mint, o.mint), max(b.maxt, o.maxt), b.count+o.count
}

// appendRecord appends the record of a series, unless that is too large: then it
// returns how many exemplars are left out.
func appendRecord(b []byte, s Series) (_ []byte, left int) {
	if len(s.Exemplars) == 0 {
		return b, 0
	}
	start := len(b)
	b = append(b, make([]byte, recordHead)...)
	b = appendSeries(b, tidySeries(s), 0)
	payload := b[start+recordHead:]
	if len(payload) > maxRecordBytes {
		return b[:start], len(s.Exemplars)
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(payload)))
	binary.BigEndian.PutUint32(b[start+4:], checksum(payload))
	return b, 0
}

func checksum(payload []byte) uint32 {
	return crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli))
}

// tidySeries returns s with labels and exemplars as a reader takes them.
func tidySeries(s Series) Series {
	out := Series{Labels: tidyLabels(s.Labels), Exemplars: slices.Clone(s.Exemplars)}
	for i := range out.Exemplars {
		out.Exemplars[i].Labels, out.Exemplars[i].HasTs = tidyLabels(out.Exemplars[i].Labels), true
	}
	slices.SortFunc(out.Exemplars, compareExemplars)
	out.Exemplars = slices.CompactFunc(out.Exemplars, func(a, b exemplar.Exemplar) bool { return compareExemplars(a, b) == 0 })
	return out
}

// tidyLabels returns labels sorted, each name once, without empty ones. Those of
// exemplars are as senders wrote them.
func tidyLabels(lset labels.Labels) labels.Labels {
	last, tidy := "", true
	lset.Range(func(l labels.Label) {
		tidy = tidy && l.Name > last && l.Value != ""
		last = l.Name
	})
	if tidy {
		return lset
	}
	byName := map[string]string{}
	lset.Range(func(l labels.Label) {
		if l.Name != "" && l.Value != "" {
			byName[l.Name] = l.Value
		}
	})
	return labels.FromMap(byName)
}

// createSegment makes a new file, ready to be written behind its head.
func createSegment(dir string, number uint64) (*segment, *os.File, error) {
	s := &segment{path: filepath.Join(dir, fmt.Sprintf("%08d%s", number, segmentSuffix)), number: number, size: segmentHead}
	s.bounds = bounds{mint: math.MaxInt64, maxt: math.MinInt64}
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, err
	}
	head := append(binary.BigEndian.AppendUint32(nil, segmentMagic), segmentVersion)
	if _, err := f.Write(head); err != nil {
		return nil, nil, errors.Join(err, f.Close(), os.Remove(s.path))
	}
	return s, f, nil
}

// openSegments reads what is in each file, and cuts off what is no whole record.
func openSegments(dir string, metrics *Metrics) ([]*segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []*segment
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		number, err := strconv.ParseUint(digits, 10, 63)
		if !ok || err != nil || e.IsDir() {
			continue
		}
		s := &segment{path: filepath.Join(dir, e.Name()), number: number, size: math.MaxInt64}
		torn, err := s.open()
		if err != nil {
			return nil, err
		}
		if torn {
			metrics.torn.Inc()
		}
		if s.count > 0 {
			out = append(out, s)
		} else if err := os.Remove(s.path); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b *segment) int { return int(a.number) - int(b.number) })
	return out, nil
}

// open finds out what is in the file, and cuts a bad end off.
func (s *segment) open() (torn bool, err error) {
	data, err := os.ReadFile(s.path)
	if err != nil {
		return false, err
	}
	s.bounds = bounds{mint: math.MaxInt64, maxt: math.MinInt64}
	s.size = int64(eachRecord(data, func(one Series) { s.add(one.Exemplars) }))
	if s.size == int64(len(data)) {
		return false, nil
	}
	return true, os.Truncate(s.path, s.size)
}

// read calls do for every record.
func (s *segment) read(do func(Series)) error {
	data, err := os.ReadFile(s.path)
	if err != nil {
		return err
	}
	// Behind size a record may be on its way.
	eachRecord(data[:min(int64(len(data)), s.size)], do)
	return nil
}

// eachRecord calls do for every record up to the first that is bad, and returns
// how many bytes are good.
func eachRecord(data []byte, do func(Series)) int {
	if len(data) < segmentHead || binary.BigEndian.Uint32(data) != segmentMagic || data[4] != segmentVersion {
		return 0
	}
	off := segmentHead
	for len(data)-off >= recordHead {
		n := binary.BigEndian.Uint32(data[off:])
		if n > maxRecordBytes || int(n) > len(data)-off-recordHead {
			break
		}
		payload := data[off+recordHead : off+recordHead+int(n)]
		if checksum(payload) != binary.BigEndian.Uint32(data[off+4:]) {
			break
		}
		r := &reader{data: string(payload)}
		one := r.series(0)
		if r.err != nil || r.off != len(r.data) {
			break
		}
		do(one)
		off += recordHead + int(n)
	}
	return off
}

package output

import (
	"encoding/binary"
	"math/bits"
	"path/filepath"
)

const (
	refBytes         = 4
	postingsFilename = "postings.tmp"
	minRunBuffer     = 4 << 10
	maxGroupHead     = 3 * binary.MaxVarintLen32
	bytesPerTuple    = 8 + 8 + refBytes // itself, its place while sorting, and a reference at most
)

// postingRuns gathers pairs of label and series and writes them to a temporary
// file in sorted runs, each as large as the memory allows:
//
//	run:   group of all series of the run │ group │ group …  by name, then value
//	group: name <uvarint>, value <uvarint>, count <uvarint>, references <4b each>, ascending
//
// Series come in order, so the list of a label is its groups of all runs one
// behind the other: merging copies bytes.
type postingRuns struct {
	file *file
	runs []run

	// A tuple is name │ value │ series, from the highest bit to the lowest: the
	// name by rank, counted from 1, the value by number in the union, the series
	// by its place in refs. It is so for all label sets, since bits are given to
	// the last what the others leave; runs get short only where those are absurdly many.
	tuples, scratch       []uint64
	refs                  []uint32
	valueBits, seriesBits uint

	maxLabels int // of a series
	memory    int64
}

// run is where a run ends, and its checksum.
type run struct {
	end int64
	sum uint32
}

func newPostingRuns(open opener, dir string, series *seriesSpool, memory int64) (*postingRuns, error) {
	f, err := newTempFile(open, filepath.Join(dir, postingsFilename))
	if err != nil {
		return nil, err
	}
	f.startSum()
	r := &postingRuns{file: f, maxLabels: series.maxLabels, memory: memory}
	// A quarter is left for reading the runs.
	tuples := min(uint64(memory/4*3/bytesPerTuple), series.labels)
	tuples = max(tuples, uint64(series.maxLabels), 1)
	r.valueBits = uint(bits.Len32(series.numbers))
	r.seriesBits = min(64-r.valueBits-uint(bits.Len32(series.names.count)), 32)
	r.tuples = make([]uint64, 0, tuples)
	r.scratch = make([]uint64, tuples)
	r.refs = make([]uint32, 0, min(tuples, series.count, 1<<r.seriesBits))
	return r, nil
}

// add gathers a label of the series that endSeries will be called for.
func (r *postingRuns) add(nameRank, value uint32) {
	key := (uint64(nameRank)+1)<<r.valueBits | uint64(value)
	r.tuples = append(r.tuples, key<<r.seriesBits|uint64(len(r.refs)))
}

// endSeries tells the reference of the series whose labels were added, and
// writes a run where there may be no room for the next one.
func (r *postingRuns) endSeries(ref uint32) error {
	r.refs = append(r.refs, ref)
	if len(r.tuples)+r.maxLabels > cap(r.tuples) || len(r.refs) == cap(r.refs) {
		return r.writeRun()
	}
	return nil
}

// writeRun sorts what was gathered and writes it.
func (r *postingRuns) writeRun() error {
	if len(r.refs) == 0 {
		return nil
	}
	if err := r.startGroup(0, 0, len(r.refs)); err != nil {
		return err
	}
	for _, ref := range r.refs {
		if err := r.append(ref); err != nil {
			return err
		}
	}
	sorted := radixSort(r.tuples, r.scratch[:len(r.tuples)], r.seriesBits)
	for len(sorted) > 0 {
		n := 1
		for n < len(sorted) && sorted[n]>>r.seriesBits == sorted[0]>>r.seriesBits {
			n++
		}
		if err := r.writeGroup(sorted[:n]); err != nil {
			return err
		}
		sorted = sorted[n:]
	}
	r.runs = append(r.runs, run{end: r.file.pos(), sum: r.file.endSum()})
	r.file.startSum()
	r.tuples, r.refs = r.tuples[:0], r.refs[:0]
	return nil
}

// writeGroup writes tuples of one label.
func (r *postingRuns) writeGroup(tuples []uint64) error {
	key := tuples[0] >> r.seriesBits
	if err := r.startGroup(key>>r.valueBits, key&(1<<r.valueBits-1), len(tuples)); err != nil {
		return err
	}
	for _, t := range tuples {
		if err := r.append(r.refs[t&(1<<r.seriesBits-1)]); err != nil {
			return err
		}
	}
	return nil
}

func (r *postingRuns) startGroup(name, value uint64, count int) error {
	if err := r.file.room(maxGroupHead); err != nil {
		return err
	}
	b := binary.AppendUvarint(r.file.buf, name)
	b = binary.AppendUvarint(b, value)
	r.file.buf = binary.AppendUvarint(b, uint64(count))
	return nil
}

func (r *postingRuns) append(ref uint32) error {
	if err := r.file.room(refBytes); err != nil {
		return err
	}
	r.file.buf = binary.BigEndian.AppendUint32(r.file.buf, ref)
	return nil
}

func (r *postingRuns) remove() error { return r.file.remove() }

// radixSort orders tuples by their bits from shift up, and leaves the order of
// those that are equal in them. It uses scratch, which is as long, and returns
// the one of the two that has the result.
//
// It takes an eighth of the time of slices.Sort (BenchmarkSortTuples).
func radixSort(tuples, scratch []uint64, shift uint) []uint64 {
	const digit = 11
	highest := uint64(0)
	for _, t := range tuples {
		highest |= t
	}
	for ; shift < uint(bits.Len64(highest)); shift += digit {
		var starts [1 << digit]uint32
		for _, t := range tuples {
			starts[t>>shift&(1<<digit-1)]++
		}
		if len(tuples) > 0 && int(starts[tuples[0]>>shift&(1<<digit-1)]) == len(tuples) {
			continue // all have the same
		}
		sum := uint32(0)
		for i, n := range starts {
			starts[i] = sum
			sum += n
		}
		for _, t := range tuples {
			d := t >> shift & (1<<digit - 1)
			scratch[starts[d]] = t
			starts[d]++
		}
		tuples, scratch = scratch, tuples
	}
	return tuples
}

// merge begins to read the runs side by side. Nothing can be added any more.
func (r *postingRuns) merge() (*postingLists, error) {
	if err := r.writeRun(); err != nil {
		return nil, err
	}
	r.tuples, r.scratch, r.refs = nil, nil, nil
	if err := r.file.flush(); err != nil {
		return nil, err
	}
	lists := &postingLists{}
	if len(r.runs) == 0 {
		lists.empty = true
		return lists, nil
	}
	size := min(max(r.memory/4/int64(len(r.runs)), minRunBuffer), fileBuffer)
	start := int64(0)
	for i, run := range r.runs {
		in := &runReader{index: i}
		in.reader = reader{from: r.file.handle, off: start, end: run.end, want: run.sum, mem: make([]byte, size)}
		if _, err := in.next(); err != nil {
			return nil, err
		}
		lists.runs.push(in)
		start = run.end
	}
	return lists, nil
}

// runReader reads the groups of a run.
type runReader struct {
	reader
	index       int
	name, value uint32 // of the group that comes next
	count       int64
}

func (r *runReader) label() uint64 { return uint64(r.name)<<32 | uint64(r.value) }

// before orders by label, and equal labels by run, hence by series.
func (r *runReader) before(o *runReader) bool {
	if a, b := r.label(), o.label(); a != b {
		return a < b
	}
	return r.index < o.index
}

// next reads the head of a group.
func (r *runReader) next() (bool, error) {
	if r.done() {
		return false, nil
	}
	head, err := r.peek(maxGroupHead)
	if err != nil {
		return false, err
	}
	name, n := binary.Uvarint(head)
	value, m := binary.Uvarint(head[max(n, 0):])
	count, k := binary.Uvarint(head[max(n, 0)+max(m, 0):])
	if n <= 0 || m <= 0 || k <= 0 {
		return false, errDamaged
	}
	r.skip(n + m + k)
	r.name, r.value, r.count = uint32(name), uint32(value), int64(count)
	return true, nil
}

// postingLists goes through the lists of all labels in order, that of all series
// first.
type postingLists struct {
	runs  heap[*runReader]
	group []*runReader // those that have a part of the list, in order
	empty bool         // there is no series; the list of all is there nevertheless

	name, value uint32 // rank of the name and number of the value; zeros for all series
	count       int64  // references
}

// next moves to the next list. The one before must have been copied.
func (l *postingLists) next() bool {
	l.group, l.count = l.group[:0], 0
	if l.empty {
		l.empty = false
		return true
	}
	if len(l.runs) == 0 {
		return false
	}
	label := l.runs[0].label()
	for len(l.runs) > 0 && l.runs[0].label() == label {
		run := l.runs.pop()
		l.group = append(l.group, run)
		l.count += run.count
	}
	l.name, l.value = max(l.group[0].name, 1)-1, l.group[0].value
	return true
}

// copyTo appends the references of the list to f.
func (l *postingLists) copyTo(f *file) error {
	for _, run := range l.group {
		if err := f.copyFrom(&run.reader, run.count*refBytes); err != nil {
			return err
		}
		more, err := run.next()
		if err != nil {
			return err
		}
		if more {
			l.runs.push(run)
		}
	}
	return nil
}

package fetch

// Span is a half-open range of bytes of one object.
type Span struct {
	Start, End int64
}

// Len is the number of bytes in s.
func (s Span) Len() int64 { return s.End - s.Start }

// planReads merges the spans wanted of one object into those worth a request.
//
// want is sorted by Start and may overlap; the result is sorted, does not
// overlap and covers want. Spans at most gap bytes apart are read together,
// since a request costs as much as reading some 512 KiB. Empty spans want
// nothing. It reads nothing and can't fail.
func planReads(want []Span, gap int64) []Span {
	var reads []Span
	for _, w := range want {
		if w.Len() <= 0 {
			continue
		}
		if n := len(reads); n > 0 && w.Start-reads[n-1].End <= gap {
			reads[n-1].End = max(reads[n-1].End, w.End)
			continue
		}
		reads = append(reads, w)
	}
	return reads
}

// Reach adds up what reading spans holds in memory, the gaps that are read over
// included, as the spans come along. It is exact when they come sorted by Start,
// and else no less than that.
type Reach struct {
	Bytes int64

	gap        int64
	start, end int64 // of the read that the last span is part of
}

// Add takes one more span in.
func (r *Reach) Add(s Span) {
	if s.Len() <= 0 {
		return
	}
	if r.Bytes > 0 && s.Start >= r.start && s.Start-r.end <= r.gap {
		r.Bytes += max(s.End-r.end, 0)
		r.end = max(r.end, s.End)
		return
	}
	r.Bytes += s.Len()
	r.start, r.end = s.Start, s.End
}

// splitReads cuts reads longer than most into parts of equal length, so that
// one long range comes over several connections. most is at least 1.
func splitReads(reads []Span, most int64) []Span {
	var parts []Span
	for _, r := range reads {
		n := (r.Len() + most - 1) / most
		size := (r.Len() + n - 1) / n
		for at := r.Start; at < r.End; at += size {
			parts = append(parts, Span{at, min(at+size, r.End)})
		}
	}
	return parts
}

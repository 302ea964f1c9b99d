package plan

import (
	"cmp"
	"crypto/sha256"
	"path"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
)

// Segments below minCopyBytes on average are rather read and written anew: it
// costs less than a request each. A result has at most maxSegments: the chunks
// of a series then lie in as many places, and who reads all of it reads as many
// objects side by side.
const (
	minCopyBytes = 256 << 10
	maxSegments  = 16
)

// copies tells whether the segments of the inputs can stay as they are: middle
// levels, on the way to the range at which all is written anew, of neighbours
// of one replica from which nothing is taken and nothing else is made.
func (p *planner) copies(d *draft, w window) bool {
	if d.kind != Compact || d.shard != nil || len(d.resolutions) != 1 || len(d.deletes) > 0 || len(d.expired) > 0 {
		return false
	}
	if len(p.cfg.Ranges) == 0 || w.length() >= p.cfg.Ranges[len(p.cfg.Ranges)-1] {
		return false
	}
	in := slices.SortedFunc(slices.Values(d.in), func(a, b *entry) int { return cmp.Compare(a.meta.MinTime, b.meta.MinTime) })
	segments, size := 0, int64(0)
	for i, e := range in {
		if i > 0 && (e.meta.MinTime < in[i-1].meta.MaxTime || !labels.Equal(e.external, in[0].external)) {
			return false
		}
		n, bytes := segmentsOf(e.meta)
		if n == 0 {
			return false
		}
		segments, size = segments+n, size+bytes
	}
	return segments <= maxSegments && size >= int64(segments)*minCopyBytes
}

// segmentsOf counts the segments of a block, and their bytes; none where its
// meta.json doesn't list them.
func segmentsOf(m *block.Meta) (n int, size int64) {
	for _, f := range m.Thanos.Files {
		if path.Dir(f.RelPath) == block.ChunksDirname {
			n, size = n+1, size+f.SizeBytes
		}
	}
	return n, size
}

// aroundID makes the other ULID of a result; zero where there was such a block
// and it is to go. Both have to differ: the segments do.
func (p *planner) aroundID(id ulid.ULID) ulid.ULID {
	sum := sha256.Sum256(append([]byte("around "), id[:]...))
	copy(id[6:], sum[:])
	if marks := p.in.Marks[id]; marks.Deletion != nil || IsBad(marks.NoCompact) {
		return ulid.ULID{}
	}
	return id
}

// AsAround is the job with the result whose segments are copied. What is recorded
// in it is said of that one: it would be somebody else's block otherwise.
func (j Job) AsAround() (Job, error) {
	m := *j.Outputs[0].Meta
	ext, _, err := m.Extension()
	if err != nil {
		return Job{}, err
	}
	m.ULID = j.Around
	if err := m.SetExtension(ext); err != nil {
		return Job{}, err
	}
	j.Outputs = slices.Clone(j.Outputs)
	j.Outputs[0].Meta = &m
	return j, nil
}

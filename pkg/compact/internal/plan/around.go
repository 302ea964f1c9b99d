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

const (
	// middleCopyBytes is how long the runs of chunks in a result must be on
	// average on the way to the longest range, where it is read for two days or
	// less: below, copying a segment costs more than reading and writing it.
	middleCopyBytes = 256 << 10
	// maxRuns is in how many places of a result a series may lie: who reads all of
	// it reads as many objects side by side.
	maxRuns = 16
)

// copies tells whether the segments of the inputs can stay as they are: those of
// neighbours of one replica from which nothing is taken and nothing else is made.
func (p *planner) copies(d *draft) bool {
	if d.kind != Compact || d.shard != nil || len(d.resolutions) != 1 || d.resolutions[0] != block.ResolutionRaw || len(d.deletes) > 0 || len(d.expired) > 0 || p.cfg.CopyBytes == 0 {
		return false
	}
	in := slices.SortedFunc(slices.Values(d.in), func(a, b *entry) int { return cmp.Compare(a.meta.MinTime, b.meta.MinTime) })
	runs, size := 0, int64(0)
	for i, e := range in {
		if i > 0 && (e.meta.MinTime < in[i-1].meta.MaxTime || !labels.Equal(e.external, in[0].external)) {
			return false
		}
		bytes := segmentBytes(e.meta)
		if bytes == 0 {
			return false
		}
		runs, size = runs+e.ext.InRuns(), size+bytes
	}
	least := p.cfg.CopyBytes
	if !d.last {
		least = min(least, middleCopyBytes)
	}
	return runs <= maxRuns && size/int64(runs) >= least
}

// segmentBytes sums up the segments of a block; 0 where its meta.json doesn't list
// them.
func segmentBytes(m *block.Meta) (size int64) {
	for _, f := range m.Thanos.Files {
		if path.Dir(f.RelPath) == block.ChunksDirname {
			size += f.SizeBytes
		}
	}
	return size
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
	ext.Runs = 0
	for _, in := range j.Inputs {
		of, _, err := in.Extension()
		if err != nil {
			return Job{}, err
		}
		ext.Runs += of.InRuns()
	}
	if err := m.SetExtension(ext); err != nil {
		return Job{}, err
	}
	j.Outputs = slices.Clone(j.Outputs)
	j.Outputs[0].Meta = &m
	return j, nil
}

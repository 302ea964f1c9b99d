package merge

import (
	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/input"
)

// MemoryBytes is how much a Run over blocks of these metas takes at most beside
// the symbols, known before any is opened: what reading and writing takes, and
// one series. It does not grow with the number of series.
//
// The symbols come on top: the text of their union and 4 bytes each, and for
// each source 4 bytes for each of its own.
func MemoryBytes(metas []*block.Meta, in input.Config, cfg Config) int64 {
	const (
		writerBytes   = 2<<20 + 64<<10 // buffers of an output.Writer
		minPostings   = 1 << 20
		tiersBytes    = 4 << 20     // windows of one series, and their chunks
		leastChunkLen = 3           // bytes of a chunk in an entry of the index
		chunkBytes    = 2*40 + 2*24 // of a chunk here and in a target, while the lists grow
		sampleBytes   = 24
		samplesPer    = 4 // in a byte of a chunk: two bits are the least for one
		batches       = 4 // a source's, at a time
		usualEntry    = 8 << 10
		usualChunk    = 4 << 10
	)
	sum := int64(len(cfg.Targets)) * (writerBytes + max(cfg.Output.MemoryBytes, minPostings) + tiersBytes)
	for _, m := range metas {
		entry, chunk := m.Thanos.IndexStats.SeriesMaxSize, m.Thanos.IndexStats.ChunkMaxSize
		if entry == 0 {
			entry = usualEntry
		}
		if chunk == 0 {
			chunk = usualChunk
		}
		sum += input.MemoryBytes(m, in)
		sum += entry / leastChunkLen * chunkBytes
		sum += chunk * (batches*samplesPer*sampleBytes + 1)
	}
	return sum
}

// Package localblock reads a block in a local folder, of raw samples or
// aggregates. A Block is used by one goroutine.
package localblock

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/rawchunk"
)

// Block is an open block.
type Block struct {
	Meta   *block.Meta
	index  *index.Reader
	chunks *chunks.Reader
}

// Open opens the block in dir, a folder that its ULID names. Close it.
func Open(dir string) (*Block, error) {
	b, err := OpenIndex(dir)
	if err != nil {
		return nil, err
	}
	if b.chunks, err = chunks.NewDirReader(filepath.Join(dir, block.ChunksDirname), pool{}); err != nil {
		return nil, errors.Join(fmt.Errorf("block %s: chunks: %w: %w", b.Meta.ULID, block.ErrCorrupt, err), b.index.Close())
	}
	return b, nil
}

// OpenIndex opens a block of which only the index is wanted: Load and Samples
// must not be called.
func OpenIndex(dir string) (*Block, error) {
	m, err := block.ReadMeta(dir)
	if err != nil {
		return nil, err
	}
	ir, err := index.NewFileReader(filepath.Join(dir, block.IndexFilename), index.DecodePostingsRaw)
	if err != nil {
		return nil, fmt.Errorf("block %s: index: %w: %w", m.ULID, block.ErrCorrupt, err)
	}
	return &Block{Meta: m, index: ir}, nil
}

// Close gives the files back.
func (b *Block) Close() error {
	if b.chunks == nil {
		return b.index.Close()
	}
	return errors.Join(b.index.Close(), b.chunks.Close())
}

// Series is one of a block.
type Series struct {
	Labels labels.Labels // without external ones
	Chunks []chunks.Meta // in order of time; Load reads them. Valid until the next series.
}

// All yields the series that all matchers match, in order of labels, until the
// first error.
func (b *Block) All(ctx context.Context, ms ...*labels.Matcher) iter.Seq2[Series, error] {
	return func(yield func(Series, error) bool) {
		p, err := b.postings(ctx, ms)
		if err != nil {
			yield(Series{}, b.wrap(err))
			return
		}
		var builder labels.ScratchBuilder
		var metas []chunks.Meta
		for p.Next() {
			if err := ctx.Err(); err != nil {
				yield(Series{}, err)
				return
			}
			if err := b.index.Series(p.At(), &builder, &metas); err != nil {
				yield(Series{}, b.wrap(err))
				return
			}
			if !yield(Series{builder.Labels(), metas}, nil) {
				return
			}
		}
		if p.Err() != nil {
			yield(Series{}, b.wrap(p.Err()))
		}
	}
}

func (b *Block) postings(ctx context.Context, ms []*labels.Matcher) (index.Postings, error) {
	if len(ms) > 0 {
		return tsdb.PostingsForMatchers(ctx, b.index, ms...)
	}
	name, value := index.AllPostingsKey()
	return b.index.Postings(ctx, name, value)
}

func (b *Block) wrap(err error) error { return fmt.Errorf("block %s: index: %w", b.Meta.ULID, err) }

// Load reads a chunk.
func (b *Block) Load(m chunks.Meta) (chunkenc.Chunk, error) {
	c, _, err := b.chunks.ChunkOrIterable(m)
	if err != nil {
		return nil, fmt.Errorf("block %s: chunk %d: %w: %w", b.Meta.ULID, m.Ref, block.ErrCorrupt, err)
	}
	return c, nil
}

// Samples iterates over all samples of raw chunks, in order of time. Of chunks
// that overlap the samples of equal time count once.
func (b *Block) Samples(metas []chunks.Meta) (chunkenc.Iterator, error) {
	its := make([]chunkenc.Iterator, 0, len(metas))
	for _, m := range metas {
		c, err := b.Load(m)
		if err != nil {
			return nil, err
		}
		if c.Encoding() == downsample.Encoding {
			return nil, fmt.Errorf("block %s: chunk %d: it is downsampled", b.Meta.ULID, m.Ref)
		}
		its = append(its, c.Iterator(nil))
	}
	return storage.ChainSampleIteratorFromIterators(nil, its), nil
}

// pool makes chunks of the bytes in a segment.
type pool struct{}

// Get implements chunkenc.Pool.
func (pool) Get(e chunkenc.Encoding, b []byte) (chunkenc.Chunk, error) {
	if e != downsample.Encoding {
		return rawchunk.Open(e, b)
	}
	return NewAggregate(b)
}

// Put implements chunkenc.Pool.
func (pool) Put(chunkenc.Chunk) error { return nil }

// Aggregate is a chunk of a downsampled block. It has no samples of its own, only
// those of its sub-chunks.
type Aggregate struct {
	downsample.Chunk
	payload []byte
}

// NewAggregate makes one of a payload.
func NewAggregate(payload []byte) (*Aggregate, error) {
	c, err := downsample.Decode(payload)
	if err != nil {
		return nil, err
	}
	return &Aggregate{payload: payload, Chunk: c}, nil
}

// Sub iterates over a sub-chunk; one that is absent has no samples.
func (a *Aggregate) Sub(t downsample.Type) (chunkenc.Iterator, error) {
	if !a.Has(t) {
		return chunkenc.NewNopIterator(), nil
	}
	c, err := rawchunk.Open(a.Chunk[t].Encoding, a.Chunk[t].Bytes)
	if err != nil {
		return nil, err
	}
	return c.Iterator(nil), nil
}

// Bytes implements chunkenc.Chunk.
func (a *Aggregate) Bytes() []byte { return a.payload }

// Encoding implements chunkenc.Chunk.
func (*Aggregate) Encoding() chunkenc.Encoding { return downsample.Encoding }

// Appender implements chunkenc.Chunk: there is none.
func (*Aggregate) Appender() (chunkenc.Appender, error) { return nil, errors.ErrUnsupported }

// Iterator implements chunkenc.Chunk: it has none.
func (*Aggregate) Iterator(chunkenc.Iterator) chunkenc.Iterator { return chunkenc.NewNopIterator() }

// Compact implements chunkenc.Chunk.
func (*Aggregate) Compact() {}

// Reset implements chunkenc.Chunk.
func (a *Aggregate) Reset(stream []byte) { a.payload = stream }

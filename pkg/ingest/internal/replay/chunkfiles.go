package replay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// chunkFiles are the head chunk files. Chunks are added in files of their own, so
// that they can be taken away again.
type chunkFiles struct {
	dir    string
	last   int                       // file that was there before; -1: none
	newest chunks.ChunkDiskMapperRef // of the chunks that were there
	found  int                       // that were there
	mapper *chunks.ChunkDiskMapper

	mu struct {
		sync.Mutex
		added int   // chunks
		err   error // of the first chunk that could not be written
	}
}

func openChunkFiles(dir string, buffer int) (*chunkFiles, error) {
	f := &chunkFiles{dir: dir, last: -1}
	var err error
	// It removes a last file that was only begun.
	if f.mapper, err = chunks.NewChunkDiskMapper(nil, dir, nil, buffer, 0); err != nil {
		return nil, fmt.Errorf("open head chunk files: %w", err)
	}
	err = f.each(func(n int, _ string) error { f.last = max(f.last, n); return nil })
	if err != nil {
		return nil, errors.Join(err, f.mapper.Close())
	}
	return f, nil
}

// each calls do for each file.
func (f *chunkFiles) each(do func(n int, path string) error) error {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if err := do(n, filepath.Join(f.dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// iterate enters into t how far series are covered.
func (f *chunkFiles) iterate(mint int64, t *table) error {
	err := f.mapper.IterateAllChunks(func(ref chunks.HeadSeriesRef, at chunks.ChunkDiskMapperRef, from, until int64, _ uint16, enc chunkenc.Encoding, late bool) error {
		f.newest = at
		f.found++
		switch {
		case late:
			t.late[ref] = struct{}{}
			return nil
		case until < mint || !chunkenc.IsValidEncoding(enc):
			return nil
		}
		if t.covered.until(ref) >= from {
			return unsure("head chunks of series %d overlap", ref)
		}
		if !t.covered.set(ref, until) {
			return unsure("series reference %d is far from others", ref)
		}
		if valueType(enc) != chunkenc.ValFloat {
			t.histograms[ref] = enc
		} else if len(t.histograms) > 0 {
			delete(t.histograms, ref)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read head chunk files: %w", err)
	}
	return nil
}

// add writes a chunk. Several goroutines may call it. Its error comes with close.
func (f *chunkFiles) add(ref chunks.HeadSeriesRef, from, until int64, enc chunkenc.Encoding, data []byte) {
	c, err := chunkenc.FromData(enc, data)
	if err != nil {
		panic(err) // the encodings are ours
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.added++
	if f.mu.err == nil {
		f.mapper.WriteChunk(ref, from, until, c, false, func(err error) { f.mu.err = err })
	}
}

func (f *chunkFiles) close() error {
	err := errors.Join(f.mu.err, f.mapper.Close())
	if err != nil {
		return fmt.Errorf("write head chunk files: %w", err)
	}
	return nil
}

// undo removes the files that were added. They are closed.
func (f *chunkFiles) undo() error {
	return f.each(func(n int, path string) error {
		if n <= f.last {
			return nil
		}
		return os.Remove(path)
	})
}

func valueType(enc chunkenc.Encoding) chunkenc.ValueType {
	switch enc {
	case chunkenc.EncHistogram, chunkenc.EncHistogramST:
		return chunkenc.ValHistogram
	case chunkenc.EncFloatHistogram, chunkenc.EncFloatHistogramST:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

package heads

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/firnline/firnline/pkg/block"
)

// spareDescriptors are those that opening a TSDB takes beside the files that it keeps open.
const spareDescriptors = 32

// checkDescriptors tells why the TSDB in dir can't be opened for want of file descriptors, or nil. When it
// runs out of them, the TSDB ends the whole process if it was writing a chunk, and
// else leaves open what it had. So there have to be as many at this moment as it will take. They are
// taken only where there are: others, such as a log that goes on to its next segment, would miss them.
func checkDescriptors(dir string) error {
	need, err := openFiles(dir)
	if err != nil {
		return err
	}
	return takeDescriptors(dir, need)
}

// checkReopening is checkDescriptors for a TSDB that is open: what it has comes back when it is closed.
func checkReopening(dir string) error { return takeDescriptors(dir, spareDescriptors) }

// takeDescriptors takes so many for a moment.
func takeDescriptors(dir string, need int) (err error) {
	if free, known := freeDescriptors(); known && free < need {
		return fmt.Errorf("opening it takes %d file descriptors, %d are free: %w", need, free, syscall.EMFILE)
	}
	open := make([]*os.File, 0, need)
	defer func() {
		for _, f := range open {
			err = errors.Join(err, f.Close())
		}
	}()
	for range need {
		f, err := os.Open(dir)
		if err != nil {
			return fmt.Errorf("opening it takes %d file descriptors: %w", need, err)
		}
		open = append(open, f)
	}
	return nil
}

// openFiles is how many files the TSDB in dir may have open at once.
func openFiles(dir string) (int, error) {
	n := spareDescriptors
	for _, log := range []string{walDir, wblDir, chunksDir} {
		files, err := numbered(filepath.Join(dir, log))
		if err != nil {
			return 0, err
		}
		if log == chunksDir {
			n += len(files) // others are read one by one
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if !isBlock(e) {
			continue
		}
		files, err := mappedFiles(filepath.Join(dir, e.Name()))
		if err != nil {
			return 0, err
		}
		n += len(files)
	}
	return n, nil
}

// mappedFiles are the files of a block that the TSDB maps into memory.
func mappedFiles(dir string) ([]string, error) {
	chunks := filepath.Join(dir, block.ChunksDirname)
	files, err := numbered(chunks)
	if err != nil {
		return nil, err
	}
	out := []string{filepath.Join(dir, block.IndexFilename)}
	for _, f := range files {
		out = append(out, filepath.Join(chunks, f.name))
	}
	return out, nil
}

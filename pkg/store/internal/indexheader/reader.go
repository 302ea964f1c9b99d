package indexheader

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/firnline/firnline/pkg/store/internal/fetch"
	"github.com/firnline/firnline/pkg/storeapi"
)

// reader is a header file that is open, with its directory in memory. All reads
// are preads, so it is safe for concurrent use. Its errors are errDamaged or
// those of the file system.
type reader struct {
	file *os.File
	dir  *directory
}

// check tells whether the file at path is the header of an index of indexSize
// bytes, as far as its two ends show.
func check(path string, indexSize int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, _, err = ends(f, indexSize)
	_ = f.Close() // read-only: nothing to lose
	return err
}

func ends(f *os.File, indexSize int64) (fetch.Span, uint32, error) {
	st, err := f.Stat()
	if err != nil {
		return fetch.Span{}, 0, err
	}
	if st.Size() < headLen+trailerLen {
		return fetch.Span{}, 0, damaged("%d bytes", st.Size())
	}
	head, trailer := make([]byte, headLen), make([]byte, trailerLen)
	if err := readAt(f, head, 0); err != nil {
		return fetch.Span{}, 0, err
	}
	if err := readAt(f, trailer, st.Size()-trailerLen); err != nil {
		return fetch.Span{}, 0, err
	}
	return decodeEnds(head, trailer, st.Size(), indexSize)
}

// readAt fills b; a file that ends before that is damaged.
func readAt(f *os.File, b []byte, at int64) error {
	if _, err := f.ReadAt(b, at); err != nil {
		if err == io.EOF {
			return damaged("ends before offset %d", at+int64(len(b)))
		}
		return err
	}
	return nil
}

// openReader loads the directory of the file at path. A missing file is fs.ErrNotExist.
func openReader(path string, indexSize int64) (*reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	dir, err := loadDirectory(f, indexSize)
	if err != nil {
		_ = f.Close() // read-only: nothing to lose
		return nil, err
	}
	return &reader{file: f, dir: dir}, nil
}

func loadDirectory(f *os.File, indexSize int64) (*directory, error) {
	at, crc, err := ends(f, indexSize)
	if err != nil {
		return nil, err
	}
	b := make([]byte, at.Len())
	if err := readAt(f, b, at.Start); err != nil {
		return nil, err
	}
	if crcOf(b) != crc {
		return nil, damaged("checksum of the directory")
	}
	return decodeDirectory(b, at.Start)
}

func (r *reader) close() { _ = r.file.Close() } // read-only: nothing to lose

// symbols looks up ids, which are sorted, and calls f for each.
func (r *reader) symbols(ids []uint32, f func(id uint32, symbol string)) error {
	for len(ids) > 0 {
		g := int(ids[0]) / groupSize
		if int(ids[0]) >= r.dir.symbols {
			return fmt.Errorf("%w: a series has symbol %d, the index has %d symbols", storeapi.ErrCorrupt, ids[0], r.dir.symbols)
		}
		n := 1
		for n < len(ids) && int(ids[n])/groupSize == g {
			n++
		}
		b, err := r.group(r.dir.groups, g, g+1)
		if err != nil {
			return err
		}
		rest := ids[:n]
		err = decodeSymbols(b, func(at int, symbol []byte) {
			if len(rest) > 0 && int(rest[0])%groupSize == at {
				f(rest[0], string(symbol))
				rest = rest[1:]
			}
		})
		if err != nil {
			return err
		}
		if len(rest) > 0 {
			return damaged("symbol %d is missing from its group", rest[0])
		}
		ids = ids[n:]
	}
	return nil
}

// group reads the bytes of groups [from, to).
func (r *reader) group(groups []int64, from, to int) ([]byte, error) {
	b := make([]byte, groups[to]-groups[from])
	return b, readAt(r.file, b, groups[from])
}

// postings finds the lists of values, which are sorted. The result leaves out
// values that there are no series of.
func (r *reader) postings(name string, values []string) ([]posting, error) {
	e := r.dir.find(name)
	if e == nil {
		return nil, nil
	}
	var (
		out     []posting
		entries []posting
		loaded  = -1
	)
	for _, v := range values {
		g := e.group(v)
		if g < 0 {
			continue
		}
		if g != loaded {
			b, err := r.group(e.groups, g, g+1)
			if err != nil {
				return nil, err
			}
			if entries, err = decodePostings(b, entries[:0]); err != nil {
				return nil, err
			}
			loaded = g
		}
		for _, p := range entries {
			if p.value == v {
				out = append(out, p)
				break
			}
		}
	}
	return out, nil
}

// walkGroups is how many groups a walk over the values of a name reads at once.
const walkGroups = 64

// walk calls f for each value of a label name that begins with prefix, in order, until it says false.
func (r *reader) walk(name, prefix string, f func(posting) bool) error {
	e := r.dir.find(name)
	if e == nil {
		return nil
	}
	var entries []posting
	for g := max(e.group(prefix), 0); g < len(e.first); {
		to := min(g+walkGroups, len(e.first))
		b, err := r.group(e.groups, g, to)
		if err != nil {
			return err
		}
		for base := e.groups[g]; g < to; g++ {
			if entries, err = decodePostings(b[e.groups[g]-base:e.groups[g+1]-base], entries[:0]); err != nil {
				return err
			}
			for _, p := range entries {
				switch {
				case strings.HasPrefix(p.value, prefix):
					if !f(p) {
						return nil
					}
				case p.value > prefix:
					return nil
				}
			}
		}
	}
	return nil
}

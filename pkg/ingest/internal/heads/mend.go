package heads

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/ingest/internal/replay"
)

// mender gets a TSDB's folder into a state that it opens in, whatever has been
// damaged, and keeps what it takes away.
//
// The TSDB repairs some damage itself, by deleting. With some it refuses to open,
// and then keeps memory and files of the attempt; some it does not notice; and a
// damaged checkpoint makes it delete the whole log. What can be seen at little
// cost is looked for beforehand. The rest shows when the log is replayed: its files are
// held by hard links meanwhile, put back as they were, and mended here, if what is wrong
// is damage (isDamage); else they stay as they are, and the TSDB is not opened:
//
//   - a log is cut at its first bad record or missing segment; what follows is put aside
//   - a checkpoint is cut likewise, and the log after it stays
//   - head chunk files go aside whole; what they held is in the log
//   - a block that can't be opened goes aside
//
// Marks of late samples whose chunk is lost only go out of the log (dropLostMarks): nothing is put aside.
//
// What is put aside lies in damaged/<unix ms>-<what>/.
//
// Invariant: whenever a step fails, or is the last before a kill, the log is there as
// a whole, in its place or held, and the next opening begins with it.
type mender struct {
	dir     string
	most    int64 // bytes in damaged/
	now     func() time.Time
	log     *slog.Logger
	metrics *metrics
	fault   func(step string) error

	// Of what is being mended, until it is settled:
	aside []string // links that were put aside
	news  []func() // what is to be told and counted
}

// Folders below damaged/.
const (
	damagedDir = "damaged"
	heldDir    = "held"     // files as they were before the TSDB was opened
	heldTmpDir = "held.tmp" // being made, or no longer needed
)

// openTSDB opens the TSDB in h.dir, mending what is damaged. When there is no room for it beside what else
// is being opened it waits and tries again with all memory for itself: that alone is final.
func (h *head) openTSDB(lim Limits, stats *tsdb.DBStats) (*tsdb.DB, error) {
	db, err := h.openBeside(lim, stats)
	if !errors.Is(err, errNoRoom) {
		return db, err
	}
	h.log.Info("there was no room to open the tenant beside others; it is tried once more alone", "why", err)
	h.heads.beside.Lock()
	defer h.heads.beside.Unlock()
	h.heads.memory.Collect() // else what others have left counts as in use
	return h.openMended(lim, stats)
}

// openBeside is openMended while others may be opened, too.
func (h *head) openBeside(lim Limits, stats *tsdb.DBStats) (*tsdb.DB, error) {
	h.heads.beside.RLock()
	defer h.heads.beside.RUnlock()
	return h.openMended(lim, stats)
}

// openMended opens the TSDB in h.dir, mending what is damaged. After an error nothing is lost.
func (h *head) openMended(lim Limits, stats *tsdb.DBStats) (*tsdb.DB, error) {
	m := h.newMender()
	err := m.prepare()
	if err == nil {
		err = errors.Join(h.heads.disk.checkOpening(h.dir), checkDescriptors(h.dir))
	}
	if err != nil {
		return nil, err
	}
	db, err := h.openHeld(m, lim, stats)
	if isDamage(err) {
		h.log.Warn("local data is damaged and is mended", "err", err)
		if err := m.mend(); err != nil {
			return nil, fmt.Errorf("mend: %w", err)
		}
		db, err = h.openHeld(m, lim, stats)
	}
	if err != nil {
		return nil, err
	}
	if err := m.prune(); err != nil {
		h.log.Warn("there is too much that was put aside as damaged, and it can't be removed", "err", err)
	}
	return db, nil
}

func (h *head) newMender() *mender {
	return &mender{dir: h.dir, most: int64(h.heads.cfg.DamagedBytes), now: h.heads.now, log: h.log, metrics: h.heads.metrics, fault: h.heads.fault}
}

// errMendedByTSDB is a log that the TSDB found damaged. It has thrown away what follows.
var errMendedByTSDB = fmt.Errorf("%w: the TSDB can't read its log to the end", block.ErrCorrupt)

// openHeld opens the TSDB while its files are held. After an error they are as they were.
func (h *head) openHeld(m *mender, lim Limits, stats *tsdb.DBStats) (*tsdb.DB, error) {
	if err := m.hold(); err != nil {
		return nil, err
	}
	db, err := h.openOnce(lim, stats)
	if err != nil {
		return nil, errors.Join(err, m.putBack())
	}
	switch {
	case h.counters.value(walCorrupt) > 0:
		err = errMendedByTSDB
	case h.counters.value(chunksCorrupt) > 0:
		err = m.settleChunks()
	}
	if err == nil {
		err = m.letGo()
	}
	if err != nil {
		return nil, errors.Join(err, db.Close(), m.putBack())
	}
	return db, nil
}

// openOnce opens the TSDB in h.dir as it is.
func (h *head) openOnce(lim Limits, stats *tsdb.DBStats) (*tsdb.DB, error) {
	h.counters.forget()
	h.census.reset()
	from, err := h.started(lim, stats)
	if err != nil {
		return nil, err
	}
	o := h.options(lim)
	o.EnableMemorySnapshotOnShutdown = from != startedByTSDB
	if err := h.heads.fault("open/tsdb"); err != nil {
		return nil, err
	}
	db, err := tsdb.Open(h.dir, quiet(h.log), h.counters, o, stats)
	if full := h.census.room.failed(); err != nil && full != nil {
		err = full // nothing is damaged
	}
	if err != nil {
		h.counters.forget() // they hold what was read
	}
	if gone := replay.Remove(h.dir); gone != nil && err == nil {
		return nil, errors.Join(gone, db.Close())
	}
	if err != nil {
		return nil, err
	}
	if h.counters.value(snapshotFailed)+h.counters.value(walCorrupt)+h.counters.value(chunksCorrupt) > 0 {
		from = startedByTSDB // in the end
	}
	h.startedFrom = from
	return db, nil
}

// prepare undoes what an interrupted opening has left, and cuts what the last
// crash has torn: that is most often a record at the very end.
func (m *mender) prepare() error {
	if st, err := os.Lstat(m.dir); err == nil && !st.IsDir() {
		return fmt.Errorf("%s is no folder", m.dir)
	}
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return err
	}
	if err := block.SyncDir(filepath.Dir(m.dir)); err != nil {
		return err
	}
	if err := m.putBack(); err != nil {
		return err
	}
	for _, name := range []string{walDir, wblDir} {
		if err := m.cutTail(name); err != nil {
			return err
		}
	}
	broken, err := m.suspect()
	if err != nil {
		return err
	}
	if broken {
		return m.mend()
	}
	return m.mendFiles()
}

// hold links the files of log and head chunks into damaged/held. Where the file
// system has no hard links the logs are looked through beforehand instead.
func (m *mender) hold() error {
	err := m.link()
	if isNoLink(err) {
		return errors.Join(os.RemoveAll(m.in(heldTmpDir)), m.mendLogs())
	}
	return err
}

// link makes the links that hold files. They count when all are there.
func (m *mender) link() error {
	tmp := m.in(heldTmpDir)
	if err := errors.Join(m.fault("mend/hold"), os.RemoveAll(tmp)); err != nil {
		return err
	}
	for _, name := range []string{walDir, wblDir, chunksDir} {
		err := linkTree(filepath.Join(m.dir, name), filepath.Join(tmp, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("hold files before opening: %w", err)
		}
	}
	if _, err := os.Stat(tmp); errors.Is(err, fs.ErrNotExist) {
		return nil // a new tenant
	}
	return os.Rename(tmp, m.in(heldDir))
}

// in is a path in damaged/.
func (m *mender) in(name string) string { return filepath.Join(m.dir, damagedDir, name) }

// letGo drops what was held. Its name goes first: half of it must not be put back.
func (m *mender) letGo() error {
	if err := m.fault("mend/let go"); err != nil {
		return err
	}
	err := os.Rename(m.in(heldDir), m.in(heldTmpDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	m.tellAside()
	err = os.RemoveAll(m.in(heldTmpDir))
	_ = os.Remove(filepath.Join(m.dir, damagedDir)) // if nothing else is in it
	return err
}

// takeBack removes the links to what is in its place still, or again.
func (m *mender) takeBack() {
	for _, link := range m.aside {
		_ = os.RemoveAll(link)
		_ = os.Remove(filepath.Dir(link)) // if nothing else is in it
	}
	m.aside, m.news = nil, nil
}

// tellAside tells and counts what was put aside: it is not taken back any more.
func (m *mender) tellAside() {
	for _, tell := range m.news {
		tell()
	}
	m.aside, m.news = nil, nil
}

// putBack makes the files what they were when they were held, if they are. It can be
// interrupted and done again.
func (m *mender) putBack() error {
	entries, err := os.ReadDir(m.in(heldDir))
	if errors.Is(err, fs.ErrNotExist) {
		m.tellAside() // nothing can be taken back
		return nil
	}
	if err != nil {
		return err
	}
	m.takeBack()
	for _, e := range entries {
		there := filepath.Join(m.dir, e.Name())
		if err := errors.Join(m.fault("mend/put back"), os.RemoveAll(there)); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(m.in(heldDir), e.Name()), there); err != nil {
			return err
		}
	}
	return errors.Join(block.SyncDir(m.dir), os.Remove(m.in(heldDir)))
}

// settleChunks keeps those held head chunk files that the TSDB has removed or replaced.
func (m *mender) settleChunks() error {
	entries, err := os.ReadDir(filepath.Join(m.in(heldDir), chunksDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // none could be held
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		was := filepath.Join(m.in(heldDir), chunksDir, e.Name())
		old, err := os.Stat(was)
		if err != nil {
			return err
		}
		if now, err := os.Stat(filepath.Join(m.dir, chunksDir, e.Name())); err == nil && os.SameFile(old, now) {
			continue
		}
		if err := m.keepAside(was, "chunks", "the TSDB could not read it"); err != nil {
			return err
		}
	}
	return nil
}

// mend looks at everything and puts aside what is bad. After an error the logs are as they were.
func (m *mender) mend() error {
	err := m.link()
	if err == nil || isNoLink(err) {
		err = m.mendLogs()
	}
	if err == nil {
		err = m.letGo()
	}
	if err != nil {
		return errors.Join(err, m.putBack())
	}
	return m.mendFiles()
}

// mendLogs mends the logs, which takes several steps: between them they are not good for opening.
func (m *mender) mendLogs() error {
	var refs refRange
	damaged := false
	for _, l := range []func(*refRange) (bool, error){m.mendCheckpoint, m.mendLog(walDir), m.mendLog(wblDir)} {
		d, err := l(&refs)
		if err != nil {
			return err
		}
		damaged = damaged || d
	}
	if !damaged {
		return nil
	}
	// References of series that were cut off must not be given to others:
	// head chunks and later records may still speak of them.
	return m.reserve(refs)
}

// mendFiles puts aside head chunk files and blocks, each by one rename.
func (m *mender) mendFiles() error {
	err := m.mendChunks()
	if err == nil {
		err = m.mendBlocks()
	}
	m.tellAside()
	return err
}

// mendChunks puts all head chunk files aside if one of them is not what the TSDB starts with.
func (m *mender) mendChunks() error {
	dir := filepath.Join(m.dir, chunksDir)
	names, err := numbered(dir)
	if err != nil {
		return err
	}
	for i, n := range names {
		why, err := checkChunkFile(filepath.Join(dir, n.name), i == len(names)-1 && n.index > 0)
		if err != nil {
			return err
		}
		if i > 0 && names[i-1].index+1 != n.index {
			why = fmt.Sprintf("file %d is missing", names[i-1].index+1)
		}
		if why != "" {
			return m.putAside(dir, "chunks", why)
		}
	}
	return nil
}

// checkChunkFile tells what is wrong with the head of a chunk file. The TSDB deals with a torn last one.
func checkChunkFile(path string, last bool) (why string, err error) {
	const header = "\x01\x30\xBC\x91\x01" // magic number of head chunks, version 1
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	got := make([]byte, chunks.HeadChunkFileHeaderSize)
	n, err := io.ReadFull(f, got)
	if ofSystem(err) {
		return "", err
	}
	switch {
	case n == len(got) && string(got[:len(header)]) == header:
		return "", nil
	case last && (n < 4 || string(got[:4]) == "\x00\x00\x00\x00"):
		return "", nil
	}
	return fmt.Sprintf("%s begins with %x", filepath.Base(path), got[:n]), nil
}

// mendBlocks puts aside the blocks that the TSDB would not open, or would pass
// over and hardly say so.
func (m *mender) mendBlocks() error {
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !isBlock(e) {
			continue
		}
		path := filepath.Join(m.dir, e.Name())
		bad := checkBlock(path)
		if bad != nil && !isDamage(bad) {
			return bad
		}
		if bad == nil {
			continue
		}
		if err := m.putAside(path, "block", bad.Error()); err != nil {
			return err
		}
	}
	return nil
}

func isBlock(e fs.DirEntry) bool {
	_, err := ulid.ParseStrict(e.Name())
	return err == nil && e.IsDir()
}

// checkBlock tells why the TSDB could not open a block.
func checkBlock(path string) error {
	m, err := block.ReadMeta(path)
	if err != nil {
		return err
	}
	if err := checkMapped(path); err != nil {
		return fmt.Errorf("block %s: %w", m.ULID, err)
	}
	b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), path, nil, tsdb.DefaultPostingsDecoderFactory)
	if err != nil && !ofSystem(err) {
		err = fmt.Errorf("%w: %w", block.ErrCorrupt, err) // it has no types for it
	}
	if err != nil {
		return fmt.Errorf("block %s: %w", m.ULID, err)
	}
	return b.Close()
}

// checkMapped looks for an empty file of a block. To map it is a mistake in the eyes of the system.
func checkMapped(dir string) error {
	paths, err := mappedFiles(dir)
	if err != nil {
		return err
	}
	for _, path := range paths {
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		if st.Size() == 0 {
			return fmt.Errorf("%w: %s is empty", block.ErrCorrupt, path)
		}
	}
	return nil
}

// putAside moves a file or folder into damaged/. When that is final it is told and counted.
func (m *mender) putAside(path, what, why string) error {
	return m.move(path, what, why, os.Rename)
}

// keepAside is putAside for a file that is going to be replaced: it stays where
// it is until then, so that a crash between the two loses nothing.
func (m *mender) keepAside(path, what, why string) error {
	return m.move(path, what, why, func(from, to string) error {
		if err := os.Link(from, to); !isNoLink(err) {
			return err
		}
		f, err := os.Open(from)
		if err != nil {
			return err
		}
		defer f.Close()
		return block.CreateFile(to, func(w io.Writer) error {
			_, err := io.Copy(w, f)
			return err
		})
	})
}

func (m *mender) move(path, what, why string, move func(from, to string) error) error {
	if err := m.fault("mend/aside"); err != nil {
		return err
	}
	dir := m.in(strconv.FormatInt(m.now().UnixMilli(), 10) + "-" + what)
	to := filepath.Join(dir, filepath.Base(path))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("put aside %s: %w", path, err)
	}
	for i := 1; ; i++ {
		_, err := os.Lstat(to)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return fmt.Errorf("put aside %s: %w", path, err)
		}
		to = filepath.Join(dir, filepath.Base(path)+"."+strconv.Itoa(i))
	}
	size := treeBytes(path)
	if err := move(path, to); err != nil {
		_ = os.Remove(dir) // if nothing else is in it
		return fmt.Errorf("put aside: %w", err)
	}
	m.aside = append(m.aside, to)
	m.news = append(m.news, func() {
		m.log.Error("damaged data is put aside", "what", what, "file", path, "to", to, "bytes", size, "err", why)
		m.metrics.damages.WithLabelValues(what).Inc()
		m.metrics.damagedBytes.Add(float64(size))
	})
	return errors.Join(block.SyncDir(dir), block.SyncDir(filepath.Dir(path)))
}

// prune removes what was put aside first until the rest is within bounds.
func (m *mender) prune() error {
	entries, err := os.ReadDir(filepath.Join(m.dir, damagedDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	type kept struct {
		path  string
		since int64
		bytes int64
	}
	var all []kept
	sum := int64(0)
	for _, e := range entries {
		ms, _, found := strings.Cut(e.Name(), "-")
		since, err := strconv.ParseInt(ms, 10, 64)
		if !found || err != nil {
			continue
		}
		k := kept{m.in(e.Name()), since, treeBytes(m.in(e.Name()))}
		sum += k.bytes
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b kept) int { return int(a.since - b.since) })
	for _, k := range all {
		if sum <= m.most {
			break
		}
		m.log.Warn("what was put aside as damaged is removed: there is too much of it (--tsdb.damaged-max-size)", "folder", k.path, "bytes", k.bytes)
		if err := os.RemoveAll(k.path); err != nil {
			return err
		}
		sum -= k.bytes
	}
	return nil
}

// treeBytes sums the files at and below a path. What can't be seen counts nothing.
func treeBytes(path string) int64 {
	sum := int64(0)
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // see above
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}

// linkTree makes a tree of hard links.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		return os.Link(path, filepath.Join(to, rel))
	})
}

// isNoLink tells that a file system has no hard links.
func isNoLink(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, errors.ErrUnsupported)
}

package block

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"
)

// list brings s up to date by a listing of the bucket.
func (f *Fetcher) list(ctx context.Context, s *fetchState) error {
	s.listed.last = true
	s.adopt(true)
	at := f.listingTime(ctx)
	l, err := list(ctx, f.bkt, f.cfg.Strategy, f.cfg.Concurrency)
	if err != nil {
		return err
	}
	s.cache.off = !at.IsZero() && !s.manifest.newer
	readErr := f.read(ctx, s, l)
	s.takePartial(l)
	if err := errors.Join(readErr, f.settle(ctx, s, l)); err != nil {
		return err
	}
	s.listed.at = f.now()
	s.manifest.found = s.findings(l, at)
	return nil
}

// task is an object to read.
type task struct {
	id   ulid.ULID
	name string
	v    version
}

// fetched is what reading it gave.
type fetched struct {
	task
	data []byte
	gone bool
}

// read gets every meta and mark that is new, was written anew or could not be
// used. What can't be read stays as it was and comes up again in the next pass.
func (f *Fetcher) read(ctx context.Context, s *fetchState, l listing) error {
	var tasks []task
	for id, b := range l {
		have := s.known.record(id)
		for name, v := range b.small {
			if !have.current(name, v) {
				tasks = append(tasks, task{id, name, v})
			}
		}
	}
	var errs []error
	for batch := range slices.Chunk(tasks, readBatch) {
		errs = append(errs, f.readBatch(ctx, s, batch)...)
	}
	s.dropMarks(l)
	return FirstError(errs)
}

// current tells that an object needs no reading: this is the version that is
// known. What another process could make nothing of is read here, too: this
// program may be newer than that one.
func (r *record) current(name string, v version) bool {
	if *r.versions.of(name) != v {
		return false
	}
	switch name {
	case MetaFilename:
		return r.problem == nil || !errors.As(r.problem, new(toldProblem))
	case DeletionMarkFilename:
		return r.marks.Deletion != nil
	case NoCompactMarkFilename:
		return r.marks.NoCompact != nil
	default:
		return r.marks.NoDownsample != nil
	}
}

// readBatch is how many objects are in memory at once, before they are parsed.
const readBatch = 1024

func (f *Fetcher) readBatch(ctx context.Context, s *fetchState, tasks []task) []error {
	results := make([]*fetched, len(tasks))
	errs := make([]error, len(tasks))
	var g errgroup.Group
	g.SetLimit(max(f.cfg.Concurrency, 1))
	for i, t := range tasks {
		g.Go(func() error {
			results[i], errs[i] = f.get(ctx, t)
			return nil
		})
	}
	_ = g.Wait() // errors are in errs: one bad object must not stop the others
	for _, r := range results {
		if r != nil && !r.gone {
			f.take(s, *r)
		}
	}
	return errs
}

func (f *Fetcher) get(ctx context.Context, t task) (*fetched, error) {
	f.metrics.reads.Inc()
	data, err := GetAll(ctx, f.bkt, Name(t.id, t.name), maxMetaBytes)
	if err != nil && f.bkt.IsObjNotFoundErr(err) {
		return &fetched{task: t, gone: true}, nil // listed and gone since: the next listing will tell
	}
	if err != nil {
		return nil, fmt.Errorf("block %s: read %s: %w", t.id, t.name, err)
	}
	if int64(len(data)) < t.v.sizeBytes {
		return nil, fmt.Errorf("block %s: read %s: %d bytes of %d came", t.id, t.name, len(data), t.v.sizeBytes)
	}
	return &fetched{task: t, data: data}, nil
}

// take parses what was read and puts it into s. A meta.json that is corrupt is
// read again in the next pass: its bytes may have been broken on their way.
func (f *Fetcher) take(s *fetchState, r fetched) {
	if r.name != MetaFilename {
		f.takeMark(s, r)
		return
	}
	known := s.known.record(r.id)
	m, err := ParseMeta(r.id, r.data)
	if known.versions.meta = r.v; errors.Is(err, ErrCorrupt) {
		known.versions.meta = version{}
	}
	if err != nil && text(known.problem) != err.Error() {
		f.log.Warn("block is left out", "block", r.id, "err", err)
	}
	known.meta, known.problem = m, err
	s.known.set(r.id, known)
	if err != nil {
		return
	}
	if err := s.cache.put(r.id, r.data, r.v); err != nil {
		f.log.Warn("meta is not kept on disk; it is read again after a restart", "block", r.id, "err", err)
	}
}

// takeMark is take for a mark. One that can't be used has no version, so that
// each listing reads it again: it may have been broken on its way, and who goes
// by our manifest may be a newer program. It is complained of once.
func (f *Fetcher) takeMark(s *fetchState, r fetched) {
	known := s.known.record(r.id)
	err := known.marks.set(r.id, r.name, r.data)
	*known.versions.of(r.name) = r.v
	if err != nil {
		*known.versions.of(r.name) = version{}
	}
	s.known.set(r.id, known)
	name := Name(r.id, r.name)
	if err != nil && s.badMarks[name] != err.Error() {
		f.log.Warn(badMark(r.name, err), "block", r.id, "err", err)
	}
	if err == nil {
		delete(s.badMarks, name)
	} else {
		s.badMarks[name] = err.Error()
	}
}

// badMark says what follows from a mark that can't be used.
func badMark(filename string, err error) string {
	switch {
	case filename == DeletionMarkFilename:
		return "deletion mark can't be used; the block is not removed"
	case errors.Is(err, ErrUnknownVersion):
		return "mark is of an unknown version; the block is left alone"
	}
	return "mark can't be used; the block is taken as not marked so"
}

// set reads one of the three marks. After an error it is nil, but for one that
// says to leave the block alone and is of an unknown version (unknownNoCompact).
func (m *Marks) set(id ulid.ULID, filename string, data []byte) (err error) {
	switch filename {
	case DeletionMarkFilename:
		m.Deletion, err = parseMark[DeletionMark](id, filename, data)
	case NoCompactMarkFilename:
		if m.NoCompact, err = parseMark[NoCompactMark](id, filename, data); errors.Is(err, ErrUnknownVersion) {
			m.NoCompact = unknownNoCompact(id, err)
		}
	default:
		if m.NoDownsample, err = parseMark[NoDownsampleMark](id, filename, data); errors.Is(err, ErrUnknownVersion) {
			m.NoDownsample = unknownNoDownsample(id, err)
		}
	}
	return err
}

// dropMarks forgets marks that have been removed from blocks that are still
// listed, and those of blocks of which nothing is left. Those of missing blocks
// stay: they say why the block is missing.
func (s *fetchState) dropMarks(l listing) {
	for id := range s.known.Marks {
		known := s.known.record(id)
		switch b := l[id]; {
		case b == nil && known.meta == nil:
			known.marks, known.versions = Marks{}, versions{}
		case b != nil && b.has(MetaFilename):
			known.keepMarks(b)
		}
		s.known.set(id, known)
	}
	maps.DeleteFunc(s.badMarks, func(name, _ string) bool {
		id, rel, _ := SplitName(name)
		return l[id] == nil || !l[id].has(rel)
	})
}

// keepMarks drops the marks that b doesn't have.
func (r *record) keepMarks(b *listed) {
	if !b.has(DeletionMarkFilename) {
		r.marks.Deletion, r.versions.deletion = nil, version{}
	}
	if !b.has(NoCompactMarkFilename) {
		r.marks.NoCompact, r.versions.noCompact = nil, version{}
	}
	if !b.has(NoDownsampleMarkFilename) {
		r.marks.NoDownsample, r.versions.noDownsample = nil, version{}
	}
}

// takePartial notes the blocks that are listed without a meta.json and aren't known.
func (s *fetchState) takePartial(l listing) {
	s.known.Partial = map[ulid.ULID]time.Time{}
	for id, b := range l {
		if !b.has(MetaFilename) && s.known.Metas[id] == nil {
			s.known.Partial[id] = b.newest
		}
	}
	for id := range s.known.Problems {
		if !l.shows(id) {
			s.known.set(id, record{marks: s.known.Marks[id]})
		}
	}
}

// settle gives up the blocks that are gone for certain.
func (f *Fetcher) settle(ctx context.Context, s *fetchState, now evidence) error {
	s.suspect(now)
	j := s.missing.judge(s.known, now, f.now(), time.Duration(f.cfg.GoneDelay))
	gone, err := f.probe(ctx, j.probe)
	for _, id := range gone {
		if seen := s.missing[id]; !seen.since.IsZero() {
			f.noteGone(s, id)
		}
	}
	for _, id := range j.probe {
		// If it is there after all, it has to be missing twice again.
		delete(s.missing, id)
	}
	f.drop(s, append(j.drop, gone...))
	if kept := j.keep + len(j.probe) - len(gone); j.fault && kept > 0 {
		f.metrics.faults.Inc()
		err = errors.Join(err, fmt.Errorf("%w: %d of %d; they are kept until they are missing again in %s and can't be read either",
			ErrListing, kept, len(s.known.Metas), f.cfg.GoneDelay))
	}
	return err
}

// suspect takes blocks that no listing has ever shown, only an announcement, for
// missing a second time, so that they are looked for at once.
func (s *fetchState) suspect(now evidence) {
	for id := range s.known.Metas {
		if s.known.versions[id].meta == (version{}) && !now.shows(id) {
			s.missing[id] = sighting{}
		}
	}
}

// probe asks for each meta.json directly and returns the blocks that have none.
func (f *Fetcher) probe(ctx context.Context, ids []ulid.ULID) ([]ulid.ULID, error) {
	there := make([]bool, len(ids))
	errs := make([]error, len(ids))
	var g errgroup.Group
	g.SetLimit(max(f.cfg.Concurrency, 1))
	for i, id := range ids {
		g.Go(func() error {
			there[i], errs[i] = f.bkt.Exists(ctx, Name(id, MetaFilename))
			return nil
		})
	}
	_ = g.Wait() // errors are in errs
	var gone []ulid.ULID
	for i, id := range ids {
		if errs[i] == nil && !there[i] {
			gone = append(gone, id)
		}
	}
	return gone, FirstError(errs)
}

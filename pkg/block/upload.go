package block

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"
)

var (
	// ErrNoExternalLabels refuses a block that nobody could tell from others in a bucket.
	ErrNoExternalLabels = errors.New("external labels are empty: set global.external_labels in Prometheus' configuration, unique for each Prometheus")
	// ErrNotVerified marks an upload that the bucket has confirmed and not kept.
	// The block is not visible; uploading again sends what is missing.
	ErrNotVerified = errors.New("the bucket holds something else than was sent")
	// ErrRemoved refuses a block that has been in the bucket and is being removed from it.
	ErrRemoved = errors.New("block is being removed from the bucket")
	// ErrNotCopied marks a segment that the bucket did not copy within itself.
	ErrNotCopied = errors.New("the bucket did not copy a segment")
)

// HashSHA256 is the one value of --hash-func beside the empty one.
const HashSHA256 = "SHA256"

// Uploader sends local blocks into a bucket, so that a block is visible only
// when complete and verified:
//
//	verify the local block ─► segments ─► index ─► list and compare sizes ─► meta.json ─► read it back
//
// What is in the bucket already with the right size is not sent again, so an
// upload that was cut off goes on where it stopped. Nothing is ever removed: a
// PUT that failed may have landed.
type Uploader struct {
	Bucket      Bucket
	Concurrency int    // segments at once; 0: 1
	HashFunc    string // "" or HashSHA256

	Now   func() time.Time        // nil: time.Now; sets upload_time
	Fault func(step string) error // called after each step where not nil; an error stops there
	Sent  func(sizeBytes int64)   // told of each object sent, where not nil

	// BeforeMeta is called, where not nil, when everything but meta.json is in
	// the bucket with the right sizes; m is what meta.json will say, and must not
	// be changed. An error leaves the block invisible. A block that is visible
	// already comes past without it.
	BeforeMeta func(ctx context.Context, m *Meta) error
}

// Steps that Uploader.Fault is called with, in order.
const (
	StepVerifiedLocal = "ship/after-local-verify"
	StepSegments      = "ship/after-segments"
	StepIndex         = "ship/after-index"
	StepVerified      = "ship/after-verify"
	StepMeta          = "ship/after-meta"
)

// Uploaded tells what an Upload came to.
type Uploaded struct {
	Meta      *Meta // as it stands in the bucket
	SentBytes int64
	Already   bool // the block was there before, complete
}

// Upload sends the block in dir, with the meta m, of which Thanos.Labels, Source
// and Downsample are the caller's; files, segment_files, index_stats and
// upload_time are filled in. m itself is not changed.
//
// The error wraps ErrNoExternalLabels, ErrCorrupt or ErrUnknownVersion where
// the block can't be sent at all, and ErrNotVerified where trying again will do.
func (u *Uploader) Upload(ctx context.Context, dir string, m *Meta) (*Uploaded, error) {
	return u.send(ctx, upload{Uploader: u, dir: dir, meta: m})
}

// Copied is a file of a block that is in the bucket already, as object From.
type Copied struct {
	File
	From string
}

// UploadWritten is Upload of a block that this process has written itself. In
// place of the verification of the local block, which takes longer than writing
// it, files are compared with the sizes and checksums in c: that what is sent is
// what was written.
//
// Where segments are given only the index is local, and they are copied within
// the bucket. An error that wraps ErrNotCopied says that it doesn't do that;
// errors.ErrUnsupported, that it can't.
func (u *Uploader) UploadWritten(ctx context.Context, dir string, m *Meta, c *Content, segments ...Copied) (*Uploaded, error) {
	return u.send(ctx, upload{Uploader: u, dir: dir, meta: m, written: c, copied: segments})
}

func (u *Uploader) send(ctx context.Context, up upload) (*Uploaded, error) {
	m := up.meta
	if len(m.Thanos.Labels) == 0 {
		return nil, fmt.Errorf("block %s: upload: %w", m.ULID, ErrNoExternalLabels)
	}
	if err := up.run(ctx); err != nil {
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnknownVersion) {
			return nil, err // names the block already
		}
		return nil, fmt.Errorf("block %s: upload: %w", m.ULID, err)
	}
	return &up.result, nil
}

// withContent returns a copy of m that lists what the block consists of.
func withContent(m *Meta, c *Content) *Meta {
	out := *m
	out.Thanos.Version = thanosVersion
	out.Thanos.SegmentFiles = slices.Clone(c.SegmentFiles)
	out.Thanos.Files = append(slices.Clone(c.Files), File{RelPath: MetaFilename})
	out.Thanos.IndexStats = c.IndexStats
	return &out
}

func (u *Uploader) step(name string) error {
	if u.Fault == nil {
		return nil
	}
	return u.Fault(name)
}

func (u *Uploader) now() time.Time {
	if u.Now == nil {
		return time.Now().UTC()
	}
	return u.Now().UTC()
}

// hash adds the hashes that --hash-func asks for.
func (u *Uploader) hash(dir string, files []File) error {
	if u.HashFunc == "" {
		return nil
	}
	for i := range files {
		sum, err := hashFile(filepath.Join(dir, filepath.FromSlash(files[i].RelPath)))
		if err != nil {
			return err
		}
		files[i].Hash = &FileHash{Func: HashSHA256, Value: sum}
	}
	return nil
}

func hashFile(path string) (string, error) {
	h := sha256.New()
	if err := readInto(h, path); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func readInto(w io.Writer, path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(w, f)
	return err
}

// upload is one block on its way.
type upload struct {
	*Uploader
	dir     string
	meta    *Meta
	written *Content // nil: not known, Verify finds it out
	copied  []Copied // segments that aren't in dir
	local   *Content // what is in dir
	content *Content // all of the block
	result  Uploaded
}

func (up *upload) run(ctx context.Context) (err error) {
	if up.local, err = listContent(up.dir); err != nil {
		return err
	}
	up.content = up.withCopied(up.local)
	have, err := listSizes(ctx, up.Bucket, up.meta.ULID)
	if err != nil {
		return err
	}
	if done, err := up.landed(ctx, have); err != nil || done {
		return err
	}
	if err := up.prepare(ctx); err != nil {
		return err
	}
	if err := up.sendFiles(ctx, have); err != nil {
		return err
	}
	return up.commit(ctx)
}

// landed tells whether the block is in the bucket, complete.
func (up *upload) landed(ctx context.Context, have map[string]int64) (bool, error) {
	_, visible := have[MetaFilename]
	if _, marked := have[DeletionMarkFilename]; marked && !visible {
		return false, ErrRemoved
	}
	if !visible || up.differs(have) != nil {
		return false, nil //nolint:nilerr // what differs is what is to be sent
	}
	m, err := up.readBack(ctx)
	if errors.Is(err, ErrCorrupt) {
		return false, nil // cut short on its way: no reader takes it, and it is written anew
	}
	if err != nil {
		return false, err
	}
	up.result = Uploaded{Meta: m, Already: true}
	return true, nil
}

// prepare verifies the local block and completes its meta.
func (up *upload) prepare(ctx context.Context) (err error) {
	if up.written != nil {
		err = up.compareWritten(ctx)
	} else {
		up.content, err = Verify(ctx, up.dir)
	}
	if err != nil {
		return err
	}
	if err := up.hash(up.dir, up.content.Files[len(up.copied):]); err != nil {
		return fmt.Errorf("hash: %w", err)
	}
	up.meta = withContent(up.meta, up.content)
	return up.step(StepVerifiedLocal)
}

// compareWritten reads the files once and compares them with what was written.
func (up *upload) compareWritten(ctx context.Context) error {
	if len(up.written.Files) != len(up.local.Files) || len(up.written.Sums) != len(up.local.Files) {
		return fmt.Errorf("block %s: %w: %d files instead of %d", up.meta.ULID, ErrCorrupt, len(up.local.Files), len(up.written.Files))
	}
	for i, f := range up.local.Files {
		if want := up.written.Files[i]; f.RelPath != want.RelPath || f.SizeBytes != want.SizeBytes {
			return fmt.Errorf("block %s: %s: %w: %d bytes instead of %s with %d", up.meta.ULID, f.RelPath, ErrCorrupt, f.SizeBytes, want.RelPath, want.SizeBytes)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
		if err := readInto(sum, filepath.Join(up.dir, filepath.FromSlash(f.RelPath))); err != nil {
			return err
		}
		if got, want := sum.Sum32(), up.written.Sums[i]; got != want {
			return fmt.Errorf("block %s: %s: %w: the checksum is %08x instead of %08x; the disk has changed it", up.meta.ULID, f.RelPath, ErrCorrupt, got, want)
		}
	}
	content := *up.written
	content.Files = up.local.Files // the writer's are left without the hashes to come
	up.content = up.withCopied(&content)
	return nil
}

// withCopied adds the segments that are copied, which stand before the index.
func (up *upload) withCopied(c *Content) *Content {
	if len(up.copied) == 0 {
		return c
	}
	out := *c
	out.Files, out.SegmentFiles = nil, nil
	for _, s := range up.copied {
		out.Files = append(out.Files, s.File)
		out.SegmentFiles = append(out.SegmentFiles, path.Base(s.RelPath))
	}
	out.Files = append(out.Files, c.Files...)
	return &out
}

// sendFiles sends what the bucket does not have: segments, then the index.
func (up *upload) sendFiles(ctx context.Context, have map[string]int64) error {
	var g errgroup.Group
	g.SetLimit(max(up.Concurrency, 1))
	sizes := make([]int64, len(up.content.Files))
	for i, f := range up.content.Files {
		if size, ok := have[f.RelPath]; f.RelPath == IndexFilename || ok && size == f.SizeBytes {
			continue
		}
		g.Go(func() error {
			if i < len(up.copied) {
				return up.copyFile(ctx, up.copied[i])
			}
			sizes[i] = f.SizeBytes
			return up.sendFile(ctx, f)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, size := range sizes {
		up.result.SentBytes += size
	}
	if err := up.step(StepSegments); err != nil {
		return err
	}
	for _, f := range up.content.Files {
		if size, ok := have[f.RelPath]; f.RelPath != IndexFilename || ok && size == f.SizeBytes {
			continue
		}
		if err := up.sendFile(ctx, f); err != nil {
			return err
		}
		up.result.SentBytes += f.SizeBytes
	}
	return up.step(StepIndex)
}

func (up *upload) copyFile(ctx context.Context, c Copied) error {
	if err := up.Bucket.Copy(ctx, c.From, Name(up.meta.ULID, c.RelPath)); err != nil {
		return fmt.Errorf("%w: %w", ErrNotCopied, err)
	}
	return nil
}

func (up *upload) sendFile(ctx context.Context, file File) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(up.dir, filepath.FromSlash(file.RelPath)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := up.Bucket.Upload(ctx, Name(up.meta.ULID, file.RelPath), f); err != nil {
		return fmt.Errorf("send %s: %w", file.RelPath, err)
	}
	up.told(file.SizeBytes)
	return nil
}

func (up *upload) told(sizeBytes int64) {
	if up.Sent != nil {
		up.Sent(sizeBytes)
	}
}

// commit lists what the bucket has, and only where every size is right makes
// the block visible by its meta.json.
func (up *upload) commit(ctx context.Context) error {
	have, err := listSizes(ctx, up.Bucket, up.meta.ULID)
	if err != nil {
		return err
	}
	if err := up.differs(have); err != nil {
		return err
	}
	if err := up.step(StepVerified); err != nil {
		return err
	}
	if up.BeforeMeta != nil {
		if err := up.BeforeMeta(ctx, up.meta); err != nil {
			return err
		}
	}
	up.meta.Thanos.UploadTime = up.now()
	data, err := up.meta.Encode()
	if err != nil {
		return err
	}
	if err := up.Bucket.Upload(ctx, Name(up.meta.ULID, MetaFilename), bytes.NewReader(data)); err != nil {
		return fmt.Errorf("send %s (it may have landed, the next try will tell): %w", MetaFilename, err)
	}
	up.told(int64(len(data)))
	up.result.SentBytes += int64(len(data))
	if err := up.step(StepMeta); err != nil {
		return err
	}
	if up.result.Meta, err = up.readBack(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrNotVerified, err)
	}
	return nil
}

// differs compares the sizes of a listing with those of the local files.
func (up *upload) differs(have map[string]int64) error {
	for _, f := range up.content.Files {
		size, ok := have[f.RelPath]
		if !ok {
			return fmt.Errorf("%s: %w: it is not listed", f.RelPath, ErrNotVerified)
		}
		if size != f.SizeBytes {
			return fmt.Errorf("%s: %w: %d bytes instead of %d", f.RelPath, ErrNotVerified, size, f.SizeBytes)
		}
	}
	return nil
}

func (up *upload) readBack(ctx context.Context) (*Meta, error) {
	data, err := GetAll(ctx, up.Bucket, Name(up.meta.ULID, MetaFilename), maxMetaBytes)
	if err != nil {
		return nil, fmt.Errorf("read back %s: %w", MetaFilename, err)
	}
	return ParseMeta(up.meta.ULID, data)
}

// listSizes returns the sizes of a block's objects by their names relative to the block.
func listSizes(ctx context.Context, bkt Bucket, id ulid.ULID) (map[string]int64, error) {
	sizes := map[string]int64{}
	err := bkt.ListSizes(ctx, Name(id, ""), func(o Object) error {
		if got, rel, ok := SplitName(o.Name); ok && got == id {
			sizes[rel] = o.SizeBytes
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	return sizes, nil
}

package block_test

import (
	"context"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
)

// smallBlock is a block of several segments.
func smallBlock(t *testing.T, dir string) block.Meta {
	return blocktest.Write(t, dir, smallSeries(), labels.FromStrings("cluster", "a"), blocktest.Options{ID: testID(1), SegmentBytes: 512, SamplesPerChunk: 10})
}

func smallSeries() []blocktest.Series {
	var out []blocktest.Series
	for i := range 5 {
		out = append(out, blocktest.Series{
			Labels:  labels.FromStrings("__name__", "up", "instance", fmt.Sprint(i)),
			Samples: blocktest.Floats(0, 7_200_000, 60_000, func(t int64) float64 { return float64(t * int64(i)) }),
		})
	}
	return out
}

// requireSame compares a block in a bucket with the local one, byte for byte.
// Of meta.json only what the upload fills in may differ.
func requireSame(t *testing.T, bkt *faulty, dir string, m block.Meta) {
	t.Helper()
	want := map[string]string{}
	bdir := filepath.Join(dir, m.ULID.String())
	require.NoError(t, filepath.WalkDir(bdir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == block.MetaFilename {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(bdir, path)
		want[block.Name(m.ULID, filepath.ToSlash(rel))] = string(data)
		return err
	}))
	got := map[string]string{}
	for name, data := range bkt.Objects() {
		if id, rel, ok := block.SplitName(name); ok && id == m.ULID && rel != block.MetaFilename {
			got[name] = string(data)
		}
	}
	require.Equal(t, want, got)

	remote, err := block.FetchMeta(context.Background(), bkt, m.ULID)
	require.NoError(t, err)
	require.Equal(t, m.Stats, remote.Stats)
	require.Equal(t, m.Compaction, remote.Compaction)
	require.Equal(t, m.MinTime, remote.MinTime)
	require.False(t, remote.Thanos.UploadTime.IsZero())
	require.Len(t, remote.Thanos.Files, len(want)+1)
	require.True(t, slices.IsSortedFunc(remote.Thanos.Files, func(a, b block.File) int { return strings.Compare(a.RelPath, b.RelPath) }))
	for _, f := range remote.Thanos.Files {
		if f.RelPath != block.MetaFilename {
			require.EqualValues(t, len(want[block.Name(m.ULID, f.RelPath)]), f.SizeBytes)
		}
	}
}

func TestUploadOrderAndMeta(t *testing.T) {
	dir, bkt := t.TempDir(), newFaulty()
	m := smallBlock(t, dir)
	up := block.Uploader{Bucket: bkt, HashFunc: block.HashSHA256, Now: newClock().now}
	sent, err := up.Upload(context.Background(), filepath.Join(dir, m.ULID.String()), &m)
	require.NoError(t, err)
	require.False(t, sent.Already)

	puts := bkt.puts()
	require.Greater(t, len(puts), 4)
	for _, name := range puts[:len(puts)-2] {
		require.Contains(t, name, "/chunks/")
	}
	require.Equal(t, []string{block.Name(m.ULID, "index"), block.Name(m.ULID, "meta.json")}, puts[len(puts)-2:])
	requireSame(t, bkt, dir, m)

	golden := filepath.Join("testdata", "meta_uploaded.json")
	data := bkt.Objects()[block.Name(m.ULID, block.MetaFilename)]
	if os.Getenv("REWRITE") != "" {
		require.NoError(t, os.WriteFile(golden, data, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(data))
}

func TestUploadNeedsLabels(t *testing.T) {
	dir, bkt := t.TempDir(), newFaulty()
	m := blocktest.Write(t, dir, smallSeries(), labels.EmptyLabels(), blocktest.Options{})
	up := block.Uploader{Bucket: bkt}
	_, err := up.Upload(context.Background(), filepath.Join(dir, m.ULID.String()), &m)
	require.ErrorIs(t, err, block.ErrNoExternalLabels)
	require.ErrorContains(t, err, "external_labels")
	require.Empty(t, bkt.Objects())
}

// TestUploadResumes stops an upload at each PUT and each step, before the object
// is stored, half way through it, and after it with the answer lost, and starts over.
//
// RELIABILITY S1: killed mid-upload. RELIABILITY S2: meta.json landed, answer lost.
func TestUploadResumes(t *testing.T) {
	dir := t.TempDir()
	m := smallBlock(t, dir)
	bdir := filepath.Join(dir, m.ULID.String())
	whole := newFaulty()
	total := len(mustUpload(t, whole, bdir, m))

	ways := map[string]func(body []byte) []byte{
		"before": func([]byte) []byte { return nil },
		"half":   func(b []byte) []byte { return b[:len(b)/2] },
		"after":  func(b []byte) []byte { return b },
	}
	for way, keep := range ways {
		for k := range total {
			t.Run(fmt.Sprintf("%s/put=%d", way, k), func(t *testing.T) {
				bkt := newFaulty()
				n := 0
				bkt.put = func(_ string, body []byte) ([]byte, error) {
					n++
					if n-1 == k {
						return keep(body), errFault
					}
					return body, nil
				}
				up := block.Uploader{Bucket: bkt}
				_, err := up.Upload(context.Background(), bdir, &m)
				require.ErrorIs(t, err, errFault)
				before := bkt.Objects()
				first := bkt.puts()
				requireInvisibleUnlessWhole(t, bkt, m, total)

				second := mustUpload(t, bkt, bdir, m)
				requireSame(t, bkt, dir, m)
				for name := range before {
					require.Contains(t, bkt.Objects(), name, "nothing is cleaned up")
				}
				kept := len(first)
				if way != "after" {
					kept--
				}
				require.Len(t, second, total-kept, "what has the right size is not sent again")
			})
		}
	}
	for _, step := range []string{block.StepVerifiedLocal, block.StepSegments, block.StepIndex, block.StepVerified, block.StepMeta} {
		t.Run(step, func(t *testing.T) {
			bkt := newFaulty()
			up := block.Uploader{Bucket: bkt, Fault: func(s string) error {
				if s == step {
					return errFault
				}
				return nil
			}}
			_, err := up.Upload(context.Background(), bdir, &m)
			require.ErrorIs(t, err, errFault)
			requireInvisibleUnlessWhole(t, bkt, m, total)
			mustUpload(t, bkt, bdir, m)
			requireSame(t, bkt, dir, m)
		})
	}
}

func mustUpload(t *testing.T, bkt *faulty, bdir string, m block.Meta) []string {
	t.Helper()
	up := block.Uploader{Bucket: bkt}
	_, err := up.Upload(context.Background(), bdir, &m)
	require.NoError(t, err)
	return bkt.puts()
}

// requireInvisibleUnlessWhole: a meta.json that can be read has everything beside it.
func requireInvisibleUnlessWhole(t *testing.T, bkt *faulty, m block.Meta, objects int) {
	t.Helper()
	if _, err := block.FetchMeta(context.Background(), bkt, m.ULID); err == nil {
		require.Len(t, bkt.Objects(), objects)
	}
}

// TestUploadVerifies lets the bucket say yes and store less.
//
// RELIABILITY S3: 200, but the object is short or absent.
func TestUploadVerifies(t *testing.T) {
	dir := t.TempDir()
	m := smallBlock(t, dir)
	bdir := filepath.Join(dir, m.ULID.String())
	total := len(mustUpload(t, newFaulty(), bdir, m))
	for name, keep := range map[string]func([]byte) []byte{
		"absent": func([]byte) []byte { return nil },
		"empty":  func([]byte) []byte { return []byte{} },
		"short":  func(b []byte) []byte { return b[:len(b)-1] },
	} {
		for k := range total {
			t.Run(fmt.Sprintf("%s/put=%d", name, k), func(t *testing.T) {
				bkt := newFaulty()
				n := 0
				bkt.put = func(name string, body []byte) ([]byte, error) {
					n++
					if n-1 == k {
						if name == block.Name(m.ULID, block.MetaFilename) && len(keep(body)) > 0 {
							return body[:len(body)-3], nil // the last byte is only a newline
						}
						return keep(body), nil
					}
					return body, nil
				}
				up := block.Uploader{Bucket: bkt}
				_, err := up.Upload(context.Background(), bdir, &m)
				require.ErrorIs(t, err, block.ErrNotVerified)
				_, err = block.FetchMeta(context.Background(), bkt, m.ULID)
				require.Error(t, err, "the block is not visible")
				bkt.puts()
				require.LessOrEqual(t, len(mustUpload(t, bkt, bdir, m)), 2, "the object and meta.json")
				requireSame(t, bkt, dir, m)
			})
		}
	}
}

func TestUploadRefusesRemoved(t *testing.T) {
	dir, bkt := t.TempDir(), newFaulty()
	m := smallBlock(t, dir)
	require.NoError(t, block.WriteDeletionMark(context.Background(), bkt, block.DeletionMark{ID: m.ULID, DeletionTime: 1}))
	up := block.Uploader{Bucket: bkt}
	_, err := up.Upload(context.Background(), filepath.Join(dir, m.ULID.String()), &m)
	require.ErrorIs(t, err, block.ErrRemoved)
}

func TestUploadHonoursContext(t *testing.T) {
	dir, bkt := t.TempDir(), newFaulty()
	m := smallBlock(t, dir)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	up := block.Uploader{Bucket: bkt}
	_, err := up.Upload(ctx, filepath.Join(dir, m.ULID.String()), &m)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, bkt.puts())
}

func TestUploadBeforeMeta(t *testing.T) {
	dir, bkt := t.TempDir(), newFaulty()
	m := smallBlock(t, dir)
	path := filepath.Join(dir, m.ULID.String())
	refuse := errFault
	up := block.Uploader{Bucket: bkt, BeforeMeta: func(_ context.Context, got *block.Meta) error {
		require.Contains(t, bkt.Objects(), block.Name(m.ULID, block.IndexFilename))
		require.NotEmpty(t, got.Thanos.Files)
		return refuse
	}}
	_, err := up.Upload(context.Background(), path, &m)
	require.ErrorIs(t, err, errFault)
	require.NotContains(t, bkt.Objects(), block.Name(m.ULID, block.MetaFilename), "refused, so not visible")

	refuse = nil
	_, err = up.Upload(context.Background(), path, &m)
	require.NoError(t, err)
	requireSame(t, bkt, dir, m)
}

// writtenContent is what the writer of a local block knows of it.
func writtenContent(t *testing.T, bdir string) *block.Content {
	c, err := block.Verify(context.Background(), bdir)
	require.NoError(t, err)
	for _, f := range c.Files {
		data, err := os.ReadFile(filepath.Join(bdir, filepath.FromSlash(f.RelPath)))
		require.NoError(t, err)
		c.Sums = append(c.Sums, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
	}
	return c
}

func TestUploadWritten(t *testing.T) {
	dir, bkt := t.TempDir(), newFaulty()
	m := smallBlock(t, dir)
	bdir := filepath.Join(dir, m.ULID.String())
	up := block.Uploader{Bucket: newFaulty(), HashFunc: block.HashSHA256, Now: newClock().now}
	verified, err := up.Upload(context.Background(), bdir, &m)
	require.NoError(t, err)

	up.Bucket, up.Now = bkt, newClock().now
	sent, err := up.UploadWritten(context.Background(), bdir, &m, writtenContent(t, bdir))
	require.NoError(t, err)
	require.Equal(t, verified, sent)
	requireSame(t, bkt, dir, m)
}

// TestUploadWrittenCompares: nothing is sent of a block that is not what was written.
//
// RELIABILITY C6
func TestUploadWrittenCompares(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, bdir string){
		"bit flipped in a chunk":   flipBit(filepath.Join(block.ChunksDirname, "000002"), 100),
		"bit flipped in the index": flipBit(block.IndexFilename, 300),
		"segment cut short": func(t *testing.T, bdir string) {
			require.NoError(t, os.Truncate(filepath.Join(bdir, block.ChunksDirname, "000001"), 50))
		},
		"last segment gone": func(t *testing.T, bdir string) {
			segments, err := os.ReadDir(filepath.Join(bdir, block.ChunksDirname))
			require.NoError(t, err)
			require.NoError(t, os.Remove(filepath.Join(bdir, block.ChunksDirname, segments[len(segments)-1].Name())))
		},
		"index gone": func(t *testing.T, bdir string) {
			require.NoError(t, os.Remove(filepath.Join(bdir, block.IndexFilename)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, bkt := t.TempDir(), newFaulty()
			m := smallBlock(t, dir)
			bdir := filepath.Join(dir, m.ULID.String())
			content := writtenContent(t, bdir)
			change(t, bdir)
			up := block.Uploader{Bucket: bkt}
			_, err := up.UploadWritten(context.Background(), bdir, &m, content)
			require.ErrorIs(t, err, block.ErrCorrupt)
			require.ErrorContains(t, err, m.ULID.String())
			require.Empty(t, bkt.puts())
		})
	}
}

// flipBit changes a file of a block without changing its length.
func flipBit(name string, offset int) func(t *testing.T, bdir string) {
	return func(t *testing.T, bdir string) {
		path := filepath.Join(bdir, name)
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		data[offset] ^= 1
		require.NoError(t, os.WriteFile(path, data, 0o644))
	}
}

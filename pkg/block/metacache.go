package block

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"
)

// metaCache keeps copies of meta.json on disk: <dir>/meta-syncer/<ULID>/meta.json,
// byte for byte as in the bucket. The file's size and modification time are those
// of the object, which tells at a glance whether a copy still holds. A cache
// without a folder is always empty.
type metaCache struct {
	dir string
	off bool // no copies are added: what is read goes into the bucket's manifest
}

func newMetaCache(dir string) metaCache {
	if dir == "" {
		return metaCache{}
	}
	return metaCache{dir: filepath.Join(dir, "meta-syncer")}
}

func (c metaCache) path(id ulid.ULID) string { return filepath.Join(c.dir, id.String(), MetaFilename) }

// ids returns the blocks that have a copy.
func (c metaCache) ids() ([]ulid.ULID, error) {
	if c.dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, ignoreNotExist(err)
	}
	var out []ulid.ULID
	for _, e := range entries {
		if id, ok := ParseID(e.Name()); ok {
			out = append(out, id)
		}
	}
	return out, nil
}

// get returns a copy and its version; false where there is none that can be used.
func (c metaCache) get(id ulid.ULID) (*Meta, version, bool) {
	if c.dir == "" {
		return nil, version{}, false
	}
	info, err := os.Stat(c.path(id))
	if err != nil {
		return nil, version{}, false
	}
	data, err := os.ReadFile(c.path(id))
	if err != nil || int64(len(data)) != info.Size() {
		return nil, version{}, false
	}
	m, err := ParseMeta(id, data)
	if err != nil {
		return nil, version{}, false
	}
	return m, version{sizeBytes: info.Size(), seconds: info.ModTime().Unix()}, true
}

// put writes a copy. It is renamed into place and not synced: what a power
// failure leaves torn does not parse, and is fetched again.
func (c metaCache) put(id ulid.ULID, data []byte, v version) error {
	if c.dir == "" || c.off {
		return nil
	}
	path := c.path(id)
	tmp := path + ".tmp"
	at := time.Unix(v.seconds, 0)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("block %s: cache meta: %w", id, err)
	}
	err := writeUnsynced(tmp, data)
	if err == nil {
		err = os.Chtimes(tmp, at, at)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fmt.Errorf("block %s: cache meta: %w", id, errors.Join(err, ignoreNotExist(os.Remove(tmp))))
	}
	return nil
}

func writeUnsynced(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// remove drops a copy.
func (c metaCache) remove(id ulid.ULID) error {
	if c.dir == "" {
		return nil
	}
	if err := os.RemoveAll(filepath.Join(c.dir, id.String())); err != nil {
		return fmt.Errorf("block %s: remove cached meta: %w", id, err)
	}
	return nil
}

package block

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"
)

// A manifest and an announcement stand in the same frame:
//
//	┌─────────────┬────────────┬─────────────────┬──────────┬────────────────┐
//	│ magic <4b>  │ version=1  │ length <uvarint>│ CRC <4b> │ content (zstd) │
//	└─────────────┴────────────┴─────────────────┴──────────┴────────────────┘
//
// Length is that of the content before compression. The CRC32C covers all
// other bytes.
const (
	manifestMagic = 0xF19A3A1F
	changesMagic  = 0xF19ADE17

	manifestVersion = 1
)

// maxContentBytes bounds what a frame may claim to hold; see maxManifestBlocks
// for what is made of it.
const maxContentBytes = 256 << 20

// seal puts content into a frame.
func seal(magic uint32, content []byte) ([]byte, error) {
	if len(content) > maxContentBytes {
		return nil, fmt.Errorf("%d bytes of content, %d are the most", len(content), maxContentBytes)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(len(content) < 1<<20))
	if err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	packed := enc.EncodeAll(content, nil)
	head := binary.BigEndian.AppendUint32(nil, magic)
	head = append(head, manifestVersion)
	head = binary.AppendUvarint(head, uint64(len(content)))
	out := binary.BigEndian.AppendUint32(head, frameCRC(head, packed))
	return append(out, packed...), enc.Close()
}

// unseal checks a frame and returns its content. The error wraps ErrCorrupt or
// ErrUnknownVersion.
func unseal(magic uint32, data []byte) ([]byte, error) {
	if len(data) < 5 || binary.BigEndian.Uint32(data) != magic {
		return nil, fmt.Errorf("%w: it does not begin with %08x", ErrCorrupt, magic)
	}
	if data[4] != manifestVersion {
		return nil, fmt.Errorf("%w %d, this program reads %d", ErrUnknownVersion, data[4], manifestVersion)
	}
	size, n := binary.Uvarint(data[5:])
	if n <= 0 || size > maxContentBytes || len(data) < 5+n+4 {
		return nil, fmt.Errorf("%w: bad length at offset 5", ErrCorrupt)
	}
	head, rest := data[:5+n], data[5+n:]
	want, packed := binary.BigEndian.Uint32(rest), rest[4:]
	if got := frameCRC(head, packed); got != want {
		return nil, fmt.Errorf("%w: CRC32C %08x at offset %d, its bytes have %08x", ErrCorrupt, want, len(head), got)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxContentBytes))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	defer dec.Close()
	content, err := dec.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: content at offset %d: %w", ErrCorrupt, len(head)+4, err)
	}
	if uint64(len(content)) != size {
		return nil, fmt.Errorf("%w: content at offset %d has %d bytes, not %d", ErrCorrupt, len(head)+4, len(content), size)
	}
	return content, nil
}

func frameCRC(head, packed []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(head, table), table, packed)
}

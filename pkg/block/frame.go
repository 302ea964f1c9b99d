package block

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"
)

// A manifest, an announcement and the notes on a block stand in the same frame:
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

	frameVersion = 1
)

// maxContentBytes bounds what a manifest or an announcement may claim to hold;
// see maxManifestBlocks for what is made of it.
const maxContentBytes = 256 << 20

// Frame is what Firnline's binary objects stand in: those of one kind have the
// same magic, and a bound on what one may claim to hold.
type Frame struct {
	Magic           uint32
	MaxContentBytes uint64
}

func manifestFrame() Frame { return Frame{Magic: manifestMagic, MaxContentBytes: maxContentBytes} }
func changesFrame() Frame  { return Frame{Magic: changesMagic, MaxContentBytes: maxContentBytes} }

// Seal puts content into a frame.
func (f Frame) Seal(content []byte) ([]byte, error) {
	if uint64(len(content)) > f.MaxContentBytes {
		return nil, fmt.Errorf("%d bytes of content, %d are the most", len(content), f.MaxContentBytes)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(len(content) < 1<<20))
	if err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	packed := enc.EncodeAll(content, nil)
	head := binary.BigEndian.AppendUint32(nil, f.Magic)
	head = append(head, frameVersion)
	head = binary.AppendUvarint(head, uint64(len(content)))
	out := binary.BigEndian.AppendUint32(head, frameCRC(head, packed))
	return append(out, packed...), enc.Close()
}

// Unseal checks a frame and returns its content. The error wraps ErrCorrupt or
// ErrUnknownVersion.
func (f Frame) Unseal(data []byte) ([]byte, error) {
	if len(data) < 5 || binary.BigEndian.Uint32(data) != f.Magic {
		return nil, fmt.Errorf("%w: it does not begin with %08x", ErrCorrupt, f.Magic)
	}
	if data[4] != frameVersion {
		return nil, fmt.Errorf("%w %d, this program reads %d", ErrUnknownVersion, data[4], frameVersion)
	}
	size, n := binary.Uvarint(data[5:])
	if n <= 0 || size > f.MaxContentBytes || len(data) < 5+n+4 {
		return nil, fmt.Errorf("%w: bad length at offset 5", ErrCorrupt)
	}
	head, rest := data[:5+n], data[5+n:]
	want, packed := binary.BigEndian.Uint32(rest), rest[4:]
	if got := frameCRC(head, packed); got != want {
		return nil, fmt.Errorf("%w: CRC32C %08x at offset %d, its bytes have %08x", ErrCorrupt, want, len(head), got)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(f.MaxContentBytes))
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

package wire

import (
	"bytes"
	"encoding/binary"
	"math/rand"
	"testing"

	"github.com/golang/snappy"
	"github.com/stretchr/testify/require"
)

// RELIABILITY P12: what of a block stands before the fault can be decoded, and a block without one has none.
func TestSnappyFault(t *testing.T) {
	plain := bytes.Repeat([]byte("a name of a label, and its value; "), 300)
	for seed := range int64(2000) {
		r := rand.New(rand.NewSource(seed))
		for range 20 {
			plain[r.Intn(len(plain))] = byte(r.Int())
		}
		whole := snappy.Encode(nil, plain[:r.Intn(len(plain))])
		require.Equal(t, len(whole), snappyFault(whole), "seed %d", seed)
		bad := damage(r, whole)
		if _, err := snappy.Decode(nil, bad); err == nil {
			require.Equal(t, len(bad), snappyFault(bad), "seed %d", seed)
			continue
		}
		at := snappyFault(bad)
		require.LessOrEqual(t, at, len(bad), "seed %d", seed)
		_, head := binary.Uvarint(bad)
		if head <= 0 || at == 0 {
			continue
		}
		require.GreaterOrEqual(t, at, head, "seed %d", seed)
		_, err := snappy.Decode(nil, append(binary.AppendUvarint(nil, made(bad[head:at])), bad[head:at]...))
		require.NoError(t, err, "seed %d: the elements before byte %d", seed, at)
	}
}

// made is how many bytes come out of elements that are whole.
func made(elements []byte) (n uint64) {
	for len(elements) > 0 {
		size, length, _ := snappyElement(elements)
		elements, n = elements[size:], n+length
	}
	return n
}

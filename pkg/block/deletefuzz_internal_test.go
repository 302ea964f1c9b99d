package block

import (
	"errors"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"
)

// FuzzParseDelete: a request that is taken comes out the same after writing and
// reading, and can be hidden; what is refused is corrupt or of another version.
func FuzzParseDelete(f *testing.F) {
	id := ulid.MustParse("01HZZZZZZZZZZZZZZZZZZZZZZZ")
	f.Add([]byte(`{"id":"01HZZZZZZZZZZZZZZZZZZZZZZZ","version":1,"selectors":["up{job=~\"a|b\"}","{\"ü.x\"}"],"minTime":-5,"maxTime":17,"created":"2026-03-01T12:00:00Z","state":"pending","finished":"0001-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"id":"01HZZZZZZZZZZZZZZZZZZZZZZZ","version":1,"selectors":["up"],"state":"done","clean":["01HZZZZZZZZZZZZZZZZZZZZZZZ"],"everything":true}`))
	f.Add([]byte(`{"version":7}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		once, err := parseDelete(id, data)
		if err != nil {
			require.True(t, errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnknownVersion), err)
			return
		}
		_, err = NewHider(once)
		require.NoError(t, err)
		written, err := encodeJSON(once)
		require.NoError(t, err)
		twice, err := parseDelete(id, written)
		require.NoError(t, err)
		again, err := encodeJSON(twice)
		require.NoError(t, err)
		require.Equal(t, string(written), string(again))
	})
}

package content

import (
	"flag"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBytes(t *testing.T) {
	for in, want := range map[string]int64{"16777216": 16 << 20, "16MiB": 16 << 20, "1GiB": 1 << 30, "1.5KiB": 1536, "0": 0, "-1": -1} {
		var got int64
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		fs.Var(Bytes(&got), "max-bytes", "")
		require.NoError(t, fs.Parse([]string{"--max-bytes=" + in}))
		require.Equal(t, want, got, in)
		again := int64(1)
		require.NoError(t, Bytes(&again).Set(Bytes(&got).String()), in)
		require.Equal(t, want, again, in)
	}
	var got int64
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Var(Bytes(&got), "max-bytes", "")
	require.EqualError(t, fs.Parse([]string{"--max-bytes=much"}),
		`invalid value "much" for flag -max-bytes: "much" is no number of bytes; give one such as 16MiB or 16777216`)
}

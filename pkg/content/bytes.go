package content

import (
	"flag"
	"fmt"
	"strconv"

	"github.com/grafana/dskit/flagext"
)

// Bytes is a flag for a number of bytes that may also be given without a unit:
// 16MiB or 16777216. Flags that never were plain numbers are flagext.Bytes.
func Bytes(to *int64) flag.Value { return (*bytesFlag)(to) }

type bytesFlag int64

// Set implements flag.Value.
func (b *bytesFlag) Set(s string) error {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		*b = bytesFlag(n)
		return nil
	}
	var with flagext.Bytes
	if err := with.Set(s); err != nil {
		return fmt.Errorf("%q is no number of bytes; give one such as 16MiB or 16777216", s)
	}
	*b = bytesFlag(with)
	return nil
}

// String implements flag.Value.
func (b *bytesFlag) String() string {
	if b == nil {
		return "0"
	}
	with := flagext.Bytes(*b)
	return with.String()
}

package store

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ByteSize is a flag value: a number of bytes with an optional unit. As in
// Thanos, KB, MB and GB are powers of 1024, like KiB, MiB and GiB.
type ByteSize int64

// Set reads 512, 64KiB, 250MB, 2GB.
func (b *ByteSize) Set(s string) error {
	number := strings.TrimRight(s, "KMGTiB")
	shift := map[string]uint{"": 0, "B": 0, "K": 10, "KB": 10, "KiB": 10, "M": 20, "MB": 20, "MiB": 20,
		"G": 30, "GB": 30, "GiB": 30, "T": 40, "TB": 40, "TiB": 40}
	by, known := shift[s[len(number):]]
	n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || !known || math.IsNaN(n) || n < 0 || n*float64(int64(1)<<by) > 1<<62 {
		return fmt.Errorf("%q is no size such as 512, 64KiB, 250MB or 2GB", s)
	}
	*b = ByteSize(n * float64(int64(1)<<by))
	return nil
}

// String is what Set reads.
func (b *ByteSize) String() string {
	if b == nil {
		return "0"
	}
	for i, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if size := ByteSize(1) << (40 - 10*i); *b >= size && *b%size == 0 {
			return strconv.FormatInt(int64(*b/size), 10) + unit
		}
	}
	return strconv.FormatInt(int64(*b), 10)
}

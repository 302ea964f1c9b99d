package store

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"
)

func TestChooseBlocks(t *testing.T) {
	datadriven.RunTest(t, "testdata/choose", func(t *testing.T, d *datadriven.TestData) string {
		var mint, maxt, most int64
		_, err := fmt.Sscanf(d.CmdArgs[0].Key, "%d-%d", &mint, &maxt)
		require.NoError(t, err)
		d.ScanArgs(t, "max", &most)
		var names, out []string
		var blocks []candidate
		for i, f := range strings.Fields(d.Input) {
			name, rest, _ := strings.Cut(f, ":")
			c := candidate{id: ulid.ULID{byte(i)}}
			_, err := fmt.Sscanf(rest, "%d-%d@%d", &c.mint, &c.maxt, &c.resolution)
			require.NoError(t, err)
			names, blocks = append(names, name), append(blocks, c)
		}
		for _, i := range chooseBlocks(blocks, mint, maxt, most) {
			out = append(out, names[i])
		}
		if len(out) == 0 {
			return "nothing\n"
		}
		return strings.Join(out, " ") + "\n"
	})
}

// TestChooseBlocksCovers: each moment that some allowed block has is covered by
// a chosen one, of the coarsest resolution that has it.
func TestChooseBlocksCovers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	for range 2000 {
		var blocks []candidate
		for i := range 1 + rnd.IntN(12) {
			from := rnd.Int64N(100)
			blocks = append(blocks, candidate{ulid.ULID{byte(i)}, from, from + 1 + rnd.Int64N(30), []int64{0, 300_000, 3_600_000}[rnd.IntN(3)]})
		}
		mint, most := rnd.Int64N(100), []int64{0, 300_000, 3_600_000}[rnd.IntN(3)]
		maxt := mint + rnd.Int64N(60)
		chosen := chooseBlocks(blocks, mint, maxt, most)
		best := func(at int64, of []int) (res int64) {
			res = -1
			for _, i := range of {
				if b := blocks[i]; b.mint <= at && at < b.maxt && b.resolution <= most {
					res = max(res, b.resolution)
				}
			}
			return res
		}
		all := make([]int, len(blocks))
		for i := range all {
			all[i] = i
		}
		for at := mint; at <= maxt; at++ {
			require.Equal(t, best(at, all), best(at, chosen), "at %d of %v: %v", at, blocks, chosen)
		}
	}
}

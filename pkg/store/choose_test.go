package store

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/storeapi"
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
			if at := strings.IndexByte(rest, '['); at >= 0 { // a shard: [from,to)
				from, to, _ := strings.Cut(strings.TrimSuffix(rest[at+1:], ")"), ",")
				c.shard = &block.Shard{Split: from + "-" + to, From: lsetOf(from), To: lsetOf(to)}
				rest = rest[:at]
			}
			_, err := fmt.Sscanf(rest, "%d-%d@%d", &c.mint, &c.maxt, &c.resolution)
			require.NoError(t, err)
			names, blocks = append(names, name), append(blocks, c)
		}
		for _, c := range chooseBlocks(blocks, mint, maxt, most) {
			out = append(out, names[c.at])
			if hidden := c.hidden(); hidden != nil {
				for _, series := range strings.Fields("a n") {
					for _, in := range hidden(lsetOf(series)) {
						out[len(out)-1] += fmt.Sprintf(" (%s not %d-%d)", series, in.Mint, in.Maxt)
					}
				}
			}
		}
		if len(out) == 0 {
			return "nothing\n"
		}
		return strings.Join(out, " ") + "\n"
	})
}

func lsetOf(series string) labels.Labels {
	if series == "" {
		return labels.EmptyLabels()
	}
	return labels.FromStrings("s", series)
}

// TestChooseBlocksCovers: each moment of each series that some allowed block has
// is answered from blocks of the coarsest resolution that has it, and from no
// others. RELIABILITY C10
func TestChooseBlocksCovers(t *testing.T) {
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(7, seed))
		var blocks []candidate
		for i := range 1 + rnd.IntN(12) {
			from := rnd.Int64N(100)
			c := candidate{id: ulid.ULID{byte(i)}, mint: from, maxt: from + 1 + rnd.Int64N(30), resolution: []int64{0, 300_000, 3_600_000}[rnd.IntN(3)]}
			if rnd.IntN(3) == 0 {
				bounds := []string{"", "h", ""}
				half := rnd.IntN(2)
				c.shard = &block.Shard{Split: "s", Index: half, Count: 2, From: lsetOf(bounds[half]), To: lsetOf(bounds[half+1])}
			}
			blocks = append(blocks, c)
		}
		mint, most := rnd.Int64N(100), []int64{0, 300_000, 3_600_000}[rnd.IntN(3)]
		maxt := mint + rnd.Int64N(60)
		chosen := chooseBlocks(blocks, mint, maxt, most)
		for _, series := range []labels.Labels{lsetOf("a"), lsetOf("n")} {
			for at := mint; at <= maxt; at++ {
				want, got := int64(-1), []int64{}
				for _, b := range blocks {
					if b.has(series, at) && b.resolution <= most {
						want = max(want, b.resolution)
					}
				}
				for _, c := range chosen {
					if b := blocks[c.at]; b.has(series, at) && (c.hidden() == nil || !storeapi.Covers(c.hidden()(series), at, at)) {
						got = append(got, b.resolution)
					}
				}
				for _, res := range got {
					require.Equal(t, want, res, "seed %d: %s at %d of %v: %v", seed, series, at, blocks, chosen)
				}
				require.Equal(t, want >= 0, len(got) > 0, "seed %d: %s at %d of %v: %v", seed, series, at, blocks, chosen)
			}
		}
	}
}

func (c candidate) has(lset labels.Labels, at int64) bool {
	return c.mint <= at && at < c.maxt && c.shard.Contains(lset)
}

package block

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/oklog/ulid/v2"
)

// randomMetas are a few blocks with random sources out of six, in two groups.
func randomMetas(seed int64) map[ulid.ULID]*Meta {
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	out := map[ulid.ULID]*Meta{}
	for i := range 8 {
		m := &Meta{ULID: randomID(i)}
		m.Thanos.Labels = map[string]string{"c": fmt.Sprint(r.IntN(2))}
		for s := range 6 {
			if r.IntN(2) == 0 {
				m.Compaction.Sources = append(m.Compaction.Sources, randomID(100+s))
			}
		}
		out[m.ULID] = m
	}
	return out
}

func randomID(n int) ulid.ULID {
	var id ulid.ULID
	if err := id.SetTime(ulid.Timestamp(time.Unix(int64(n), 0))); err != nil {
		panic(err)
	}
	return id
}

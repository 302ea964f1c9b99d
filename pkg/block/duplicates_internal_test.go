package block

import (
	"fmt"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"
)

// BenchmarkDuplicates is one pass over a bucket of 50 clusters with two replicas
// each. Of every other window both replicas are there and a block that they were
// made one in; of every tenth such block the four shards that it was cut into.
func BenchmarkDuplicates(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		metas := manyMetas(b, n)
		b.Run(fmt.Sprintf("metas=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Duplicates(metas)
			}
		})
	}
}

func manyMetas(b *testing.B, n int) map[ulid.ULID]*Meta {
	const clusters, hours2 = 50, 2 * 3_600_000
	out := make(map[ulid.ULID]*Meta, n)
	add := func(window int64, labels map[string]string, sources ...ulid.ULID) *Meta {
		m := &Meta{ULID: randomID(len(out)), MinTime: window * hours2, MaxTime: (window + 1) * hours2}
		m.Thanos.Labels, m.Compaction.Sources = labels, sources
		out[m.ULID] = m
		return m
	}
	extend := func(m *Meta, e Extension) { require.NoError(b, m.SetExtension(e)) }
	for window := int64(0); len(out) < n; window++ {
		for c := range clusters {
			name := fmt.Sprintf("c-%d", c)
			x := add(window, map[string]string{"cluster": name, "replica": "a"})
			y := add(window, map[string]string{"cluster": name, "replica": "b"})
			if window%2 == 0 {
				continue
			}
			one := map[string]string{"cluster": name}
			extend(add(window, one, x.ULID, y.ULID), Extension{ReplicaLabels: []string{"replica"}})
			if window%20 != 1 {
				continue
			}
			for i := range 4 {
				m := add(window, one)
				if m.Compaction.Sources = []ulid.ULID{m.ULID}; i == 3 {
					m.Compaction.Sources = append(m.Compaction.Sources, x.ULID, y.ULID)
				}
				extend(m, Extension{ReplicaLabels: []string{"replica"}, Shard: &Shard{Split: "s", Index: i, Count: 4, Sources: []ulid.ULID{x.ULID, y.ULID}}})
			}
		}
	}
	return out
}

package ring

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are those of the gossip ring.
type metrics struct {
	count   *prometheus.GaugeVec
	changes prometheus.Counter
	factor  prometheus.Gauge
	clashes prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		count:   f.NewGaugeVec(prometheus.GaugeOpts{Name: "firnline_ring_instances", Help: "Nodes in the ring by state; UNHEALTHY are those without a heartbeat, whatever their state."}, []string{"state"}),
		changes: f.NewCounter(prometheus.CounterOpts{Name: "firnline_ring_changes_total", Help: "Changes of the ring that placed series anew."}),
		factor:  f.NewGauge(prometheus.GaugeOpts{Name: "firnline_ring_replication_factor", Help: "Nodes that each series is written to."}),
		clashes: f.NewCounter(prometheus.CounterOpts{Name: "firnline_ring_id_clashes_total", Help: "Heartbeats that found another node under the ID of this one."}),
	}
}

func (m *metrics) members(members []Member) {
	n := map[State]int{Pending: 0, Joining: 0, Active: 0, Leaving: 0, "UNHEALTHY": 0}
	for _, x := range members {
		if x.Healthy {
			n[x.State]++
		} else {
			n["UNHEALTHY"]++
		}
	}
	for s, c := range n {
		m.count.WithLabelValues(string(s)).Set(float64(c))
	}
}

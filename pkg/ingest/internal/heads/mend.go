package heads

import (
	"fmt"

	"github.com/prometheus/prometheus/tsdb"
)

// openTSDB opens the TSDB in h.dir.
func (h *head) openTSDB(lim Limits, stats *tsdb.DBStats) (*tsdb.DB, error) {
	db, err := tsdb.Open(h.dir, h.log, h.counters, h.options(lim), stats)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return db, nil
}

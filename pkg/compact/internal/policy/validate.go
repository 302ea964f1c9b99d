package policy

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/common/model"

	"github.com/firnline/firnline/pkg/block"
)

// Thanos downsamples a block once it is this long, and refuses to start with a
// retention that is shorter. A finer tier that goes before is never downsampled.
const (
	shortestRaw = 40 * time.Hour
	shortest5m  = 10 * 24 * time.Hour
)

// Validate refuses what downsampling can never reach: a tier that a coarser one
// is to outlive, kept for less time than it takes until the coarser one is made.
// It is for a compactor that downsamples.
func (p *Policy) Validate() error {
	errs := []error{p.Default.check("--retention.resolution-raw", "--retention.resolution-5m", "")}
	for _, r := range p.Rules {
		errs = append(errs, r.Tiers.check("raw", "5m", fmt.Sprintf("%s:%d: ", p.Name, r.Line)))
	}
	return errors.Join(errs...)
}

func (t Tiers) check(raw, five, where string) error {
	return errors.Join(
		t.reaches(block.ResolutionRaw, shortestRaw, where+raw),
		t.reaches(block.Resolution5m, shortest5m, where+five),
	)
}

// reaches checks one tier; what names the setting.
func (t Tiers) reaches(resolution int64, shortest time.Duration, what string) error {
	coarser, ok := t.Outlives(resolution)
	own := t.At(resolution)
	if !ok || own >= shortest {
		return nil
	}
	return fmt.Errorf("%s: %s data is kept for %s, and %s data, kept for %s, is made of it only when %s of it are there: %s − %s = %s too short; keep it for %s or longer, or %s for no longer than it",
		what, ResolutionName(resolution), model.Duration(own), ResolutionName(coarser), forever(t.At(coarser)), model.Duration(shortest),
		model.Duration(shortest), model.Duration(own), model.Duration(shortest-own), model.Duration(shortest), ResolutionName(coarser))
}

func forever(d time.Duration) string {
	if d == 0 {
		return "ever"
	}
	return model.Duration(d).String()
}

// ResolutionName is how people write a resolution in ms: raw, 5m, 1h.
func ResolutionName(resolution int64) string {
	if resolution == block.ResolutionRaw {
		return "raw"
	}
	return model.Duration(time.Duration(resolution) * time.Millisecond).String()
}

package downsample

import "github.com/prometheus/prometheus/model/histogram"

// number is a value of floats, or of histograms where h is set.
type number struct {
	f float64
	h *histogram.FloatHistogram
}

func (a number) plus(b number) (number, error) {
	if a.h == nil {
		return number{f: a.f + b.f}, nil
	}
	h, _, _, err := a.h.Copy().Add(b.h)
	return number{h: h}, err
}

func (a number) minus(b number) (number, error) {
	if a.h == nil {
		return number{f: a.f - b.f}, nil
	}
	h, _, _, err := a.h.Copy().Sub(b.h)
	return number{h: h}, err
}

// below tells whether a counter was reset that was at b and then is at a.
func (a number) below(b number) bool {
	if a.h == nil {
		return a.f < b.f
	}
	return isReset(a.h, b.h)
}

// grown is a - b, or nothing where that is below zero anywhere.
func (a number) grown(b number) (number, error) {
	if !a.below(b) {
		return a.minus(b)
	}
	if a.h == nil {
		return number{}, nil
	}
	return b.minus(b)
}

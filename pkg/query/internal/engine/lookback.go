package engine

import "time"

// The resolutions of downsampled data, at which lookback steps up.
var resolutions = []time.Duration{5 * time.Minute, time.Hour}

// lookbackFor returns how far back to look for a sample when the data may be
// as coarse as maxResolution: the smallest of the configured lookback and the
// downsampling resolutions that covers it. Samples of a coarser resolution stand that
// far apart, so that a shorter lookback would see gaps.
func lookbackFor(configured, maxResolution time.Duration) time.Duration {
	lookback := configured
	for _, r := range resolutions {
		if lookback >= maxResolution {
			break
		}
		lookback = max(lookback, r)
	}
	return lookback
}

//go:build !unix

package admit

import "time"

// cpuTime is not known here: the CPU watermark is never reached.
func cpuTime() time.Duration { return 0 }

package compact

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// Stages of a job, as they are shown.
const (
	stageStart  = "starting"
	stageLook   = "looking for what to remove"
	stageMerge  = "merging"
	stageUpload = "uploading"
	stageVerify = "reading back"
	stageWait   = "waiting for other shards"
	stageMark   = "marking inputs"
)

// progress is how far a running job has come. It may be read at any time.
type progress struct {
	job     *plan.Job
	worker  int // one of --compact.concurrency, from 0; set when the job begins
	started time.Time
	stage   atomic.Value // string
	read    atomic.Int64 // bytes of the inputs
	sent    atomic.Int64 // bytes of the results
	toSend  atomic.Int64 // bytes of the results, once they are known
}

func newProgress(j *plan.Job, now time.Time) *progress {
	p := &progress{job: j, started: now}
	p.stage.Store(stageStart)
	return p
}

func (p *progress) at(stage string) { p.stage.Store(stage) }

func (p *progress) stageName() string { return p.stage.Load().(string) }

// share is how much of the job is done, from 0 to 1: reading the inputs counts
// for as much as sending the results.
func (p *progress) share() float64 {
	read, sent := 0.0, 0.0
	if p.job.InputBytes > 0 {
		read = min(float64(p.read.Load())/float64(p.job.InputBytes), 1)
	}
	if n := p.toSend.Load(); n > 0 {
		read, sent = 1, min(float64(p.sent.Load())/float64(n), 1)
	}
	return (read + sent) / 2
}

// left estimates how long the job will take from now; 0: nobody knows yet.
func (p *progress) left(now time.Time) time.Duration {
	share := p.share()
	if share < 0.01 {
		return 0
	}
	return time.Duration(float64(now.Sub(p.started)) * (1 - share) / share)
}

// size is a number of bytes as people read it.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	f, i := float64(n), 0
	for ; f >= 1024 && i < len(units)-1; i++ {
		f /= 1024
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

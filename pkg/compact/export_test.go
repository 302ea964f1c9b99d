package compact

import "time"

// Patient makes passes wait for the jobs of others as if their own took an hour,
// and look often meanwhile.
func (c *Compactor) Patient() {
	c.jobs.took(time.Hour)
	c.jobs.most = 10 * time.Millisecond
}

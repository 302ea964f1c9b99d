package replicate

// verdict is what becomes of a series.
type verdict uint8

const (
	open     verdict = iota // answers that are missing can change it
	accepted                // a quorum has it
	refused                 // so many owners refuse it for good that there can't be a quorum
	failed                  // no quorum, but there may be one when it is sent again
)

// votes are the answers of a series' owners.
type votes struct {
	owners, quorum      uint16
	ok, refused, failed uint16
}

// verdict decides. A refusal for good stands even where another owner failed or
// is away, once it rules a quorum out: to ask a sender for the same again would hold up all
// that it has to send for as long as that owner is gone.
func (v votes) verdict() verdict {
	missing := v.owners - v.ok - v.refused - v.failed
	switch {
	case v.owners < v.quorum:
		return failed
	case v.ok >= v.quorum:
		return accepted
	case v.refused > v.owners-v.quorum:
		return refused
	case v.ok+missing >= v.quorum, v.refused+missing > v.owners-v.quorum:
		return open
	}
	return failed
}

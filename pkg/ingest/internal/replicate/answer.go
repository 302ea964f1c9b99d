package replicate

import (
	"encoding/binary"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/tenant"
)

// Kinds of answers.
const (
	answerResult  = 0
	answerRefused = 1 // nothing was appended
)

// appendAnswer writes what became of a frame: a result or, with err, why it was
// refused whole. Of each reason only the first text goes.
func appendAnswer(b []byte, res batch.Result, err *refuse.Error) []byte {
	if err != nil {
		b = append(b, answerRefused)
		return appendString(appendString(b, string(err.Reason)), err.Detail)
	}
	b = append(b, answerResult)
	b = binary.AppendUvarint(b, uint64(len(res.Unknown)))
	last := uint32(0)
	for _, n := range res.Unknown {
		b = binary.AppendVarint(b, int64(n)-int64(last))
		last = n
	}
	reasons := reasonsOf(res.Refused)
	b = binary.AppendUvarint(b, uint64(len(reasons)))
	for _, e := range reasons {
		b = appendString(appendString(b, string(e.Reason)), e.Detail)
	}
	b = binary.AppendUvarint(b, uint64(len(res.Refused)))
	last = 0
	for _, x := range res.Refused {
		b = binary.AppendVarint(b, int64(x.Series)-int64(last))
		last = x.Series
		b = binary.AppendUvarint(b, uint64(x.Samples))
		b = binary.AppendUvarint(b, uint64(reasonNumber(reasons, x.Err.Reason)))
	}
	return b
}

// reasonsOf returns the first error of each reason.
func reasonsOf(all []batch.Refused) []*refuse.Error {
	var out []*refuse.Error
	for _, x := range all {
		if reasonNumber(out, x.Err.Reason) == len(out) {
			out = append(out, x.Err)
		}
	}
	return out
}

// reasonNumber finds a reason; len(errs) if it is not there.
func reasonNumber(errs []*refuse.Error, r refuse.Reason) int {
	for i, e := range errs {
		if e.Reason == r {
			return i
		}
	}
	return len(errs)
}

// readAnswer reads the answer to a frame of n series.
func readAnswer(payload []byte, n int, id tenant.ID) (batch.Result, error) {
	r := frameReader{b: payload, all: len(payload)}
	var res batch.Result
	switch kind := r.byte(); {
	case r.err != nil:
	case kind == answerRefused:
		if e := r.refusal(id); r.err == nil {
			return res, e
		}
	case kind != answerResult:
		r.fail("kind of answer %d is not known", kind)
	default:
		res = r.result(n, id)
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	return res, r.err
}

func (r *frameReader) refusal(id tenant.ID) *refuse.Error {
	reason, detail := r.string(), r.string()
	return &refuse.Error{Reason: refuse.Reason(reason), Tenant: id, Detail: string(detail)}
}

func (r *frameReader) result(n int, id tenant.ID) (res batch.Result) {
	last := int64(0)
	for range r.count(1) {
		last = r.seriesAfter(last, n)
		res.Unknown = append(res.Unknown, uint32(last))
	}
	var reasons []*refuse.Error
	for range r.count(2) {
		reasons = append(reasons, r.refusal(id))
	}
	last = 0
	for range r.count(3) {
		last = r.seriesAfter(last, n)
		samples, reason := r.uvarint(), r.uvarint()
		if r.err == nil && (reason >= uint64(len(reasons)) || samples > 1<<31) {
			r.fail("reason %d of %d for %d samples", reason, len(reasons), samples)
		}
		if r.err != nil {
			return batch.Result{}
		}
		res.Refused = append(res.Refused, batch.Refused{Series: uint32(last), Samples: int(samples), Err: reasons[reason]})
	}
	return res
}

// seriesAfter reads the number of a series among n, as the difference to another one.
func (r *frameReader) seriesAfter(last int64, n int) int64 {
	at := last + r.varint()
	if r.err == nil && (at < 0 || at >= int64(n)) {
		r.fail("series %d of %d", at, n)
	}
	if r.err != nil {
		return 0
	}
	return at
}

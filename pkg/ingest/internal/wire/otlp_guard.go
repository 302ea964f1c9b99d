package wire

// What goes to the library is looked at first: it recurses as deep as values
// are nested, and makes an object of some 100 bytes for a message of two.

// maxNesting bounds messages within messages. Values of attributes that are
// lists of maps of lists are legal, and useless beyond a few steps.
const maxNesting = 64

// guardedPerItem is how many messages of any kind may stand for one item of
// --ingest.max-items: a data point has some ten attributes, of two messages each.
const guardedPerItem = 8

// kind is a message of OTLP that has messages inside.
type kind uint8

const (
	leaf kind = iota // has none
	request0
	resourceMetrics
	resource
	scopeMetrics
	scope
	metric
	points // Gauge and Sum
	histograms
	exponentials
	summaries
	number
	histogramPoint
	exponential
	summary
	exemplarPoint
	keyValue
	anyValue
	values    // ArrayValue
	keyValues // KeyValueList
)

// inside tells which fields of a message are messages.
var inside = [...]map[int32]kind{
	request0:        {1: resourceMetrics},
	resourceMetrics: {1: resource, 2: scopeMetrics, 1000: scopeMetrics},
	resource:        {1: keyValue, 3: leaf},
	scopeMetrics:    {1: scope, 2: metric},
	scope:           {3: keyValue},
	metric:          {5: points, 7: points, 9: histograms, 10: exponentials, 11: summaries, 12: keyValue},
	points:          {1: number},
	histograms:      {1: histogramPoint},
	exponentials:    {1: exponential},
	summaries:       {1: summary},
	number:          {7: keyValue, 5: exemplarPoint},
	histogramPoint:  {9: keyValue, 8: exemplarPoint},
	exponential:     {1: keyValue, 8: leaf, 9: leaf, 11: exemplarPoint},
	summary:         {7: keyValue, 6: leaf},
	exemplarPoint:   {7: keyValue},
	keyValue:        {2: anyValue},
	anyValue:        {5: values, 6: keyValues},
	values:          {1: anyValue},
	keyValues:       {1: keyValue},
	leaf:            nil,
}

// maxDescribed bounds what has attributes, a resource, a scope, a data point, and names. A value
// becomes a label by way of JSON, where a byte can take six, and attributes of one name after
// translation are joined; the labels of the TSDB hold 16 MiB and panic beyond.
const maxDescribed = 2 << 20

func described(k kind) bool {
	switch k {
	case resource, scope, number, histogramPoint, exponential, summary, exemplarPoint:
		return true
	}
	return false
}

// guard walks a message of a kind to the end of s, and records an error if the
// library must not see it. room is how many messages there may be.
func guard(s *scanner, k kind, depth int, room *int) {
	if depth > maxNesting {
		s.bad("more than %d messages within each other", maxNesting)
		return
	}
	for s.more() {
		num, wire := s.tag()
		child, ok := inside[k][num]
		if !ok {
			at := s.i
			if s.skip(wire); s.i-at > maxDescribed { // a name, a unit, a schema
				s.tooLarge("a field of %d bytes, at most %d are taken", s.i-at, maxDescribed)
			}
			continue
		}
		if *room--; *room < 0 {
			s.tooLarge("too many messages, attributes among them (%s)", flagItems)
		}
		if s.is(wire, wireBytes) {
			outer := s.enter()
			if s.end-s.i > maxDescribed && described(child) {
				s.tooLarge("a resource, scope or data point of %d bytes, at most %d are taken", s.end-s.i, maxDescribed)
			}
			guard(s, child, depth+1, room)
			s.leave(outer)
		}
	}
}

// guardJSON does the same for JSON, by its brackets.
func guardJSON(s *scanner, room int) {
	depth := 0
	for quoted := false; s.more(); s.i++ {
		switch c := s.b[s.i]; {
		case quoted && c == '\\':
			s.i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxNesting {
				s.bad("more than %d levels of brackets", maxNesting)
			}
			if room--; room < 0 {
				s.tooLarge("too many objects, attributes among them (%s)", flagItems)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
}

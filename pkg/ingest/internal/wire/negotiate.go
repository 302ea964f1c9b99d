package wire

import (
	"cmp"
	"mime"
	"strings"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// Format is what a body holds.
type Format uint8

// The formats of write requests.
const (
	RW1       Format = iota // prometheus.WriteRequest
	RW2                     // io.prometheus.write.v2.Request
	OTLPProto               // ExportMetricsServiceRequest
	OTLPJSON                // the same in OTLP's JSON
)

func (f Format) String() string {
	return [...]string{"remote write 1", "remote write 2", "OTLP protobuf", "OTLP JSON"}[f]
}

// The content types of write requests.
const (
	protobufType = "application/x-protobuf"
	jsonType     = "application/json"
	rw1Message   = "prometheus.WriteRequest"
	rw2Message   = "io.prometheus.write.v2.Request"
)

// Negotiate tells a request's format by its Content-Type, on a path of OTLP or
// of remote write. The header X-Prometheus-Remote-Write-Version doesn't
// matter: the specification of version 2 makes the content type decide, and who
// sends version 2 sends both.
func Negotiate(contentType string, otlp bool) (Format, error) {
	kind, params, err := mime.ParseMediaType(cmp.Or(contentType, protobufType))
	if err != nil {
		return 0, refuse.Errorf(refuse.UnsupportedType, "", "content type %q can't be read: %v", contentType, err)
	}
	message := params["proto"]
	switch {
	case otlp && contentType != "" && kind == protobufType:
		return OTLPProto, nil
	case otlp && kind == jsonType:
		return OTLPJSON, nil
	case otlp:
		return 0, refuse.Errorf(refuse.UnsupportedType, "", "content type %q is none of OTLP's: send %s or %s", contentType, protobufType, jsonType)
	case kind == protobufType && (message == "" || message == rw1Message):
		return RW1, nil
	case kind == protobufType && message == rw2Message:
		return RW2, nil
	}
	return 0, refuse.Errorf(refuse.UnsupportedType, "", "content type %q is none of remote write's: send %s;proto=%s or %s;proto=%s",
		contentType, protobufType, rw1Message, protobufType, rw2Message)
}

// Encoding is how a body of this format is compressed, by its request's
// Content-Encoding. Remote write without one is taken for snappy, since
// Prometheus and Thanos take it so and some senders rely on that. Version 2
// is snappy alone, by its specification; senders of version 1 use others too.
func (f Format) Encoding(header string) (string, error) {
	switch {
	case f == RW2 && header != "" && !strings.EqualFold(header, snappyEncoding):
		return "", refuse.Errorf(refuse.UnsupportedType, "", "content encoding %q is not that of remote write 2: send %s", header, snappyEncoding)
	case header == "" && (f == RW1 || f == RW2):
		return snappyEncoding, nil
	}
	return cmp.Or(header, identityEncoding), nil
}

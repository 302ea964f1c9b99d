package storeapi_test

import (
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/firnline/firnline/pkg/storeapi/storepb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/hintspb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/infopb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/prompb"
)

// ours is where the numbers begin that only Firnline knows.
const ours = 1000

// vt are the generated methods.
type vt interface {
	proto.Message
	MarshalVT() ([]byte, error)
	UnmarshalVT([]byte) error
}

// TestWireNumbers decodes, for each field of each message, bytes put together
// from the field's number and type, looks the value up by name, and encodes it again.
func TestWireNumbers(t *testing.T) {
	text, err := os.ReadFile("testdata/wire_numbers")
	require.NoError(t, err)
	var msg protoreflect.MessageType
	fields := map[protoreflect.FullName]int{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if f[0] == "#" {
			continue
		}
		if len(f) == 1 {
			msg, err = protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(f[0]))
			require.NoError(t, err, f[0])
			fields[msg.Descriptor().FullName()] = 0
			continue
		}
		fields[msg.Descriptor().FullName()]++
		number, err := strconv.Atoi(f[0])
		require.NoError(t, err)
		t.Run(string(msg.Descriptor().FullName())+"."+f[1], func(t *testing.T) {
			checkField(t, msg, protowire.Number(number), f[1], f[2], len(f) > 3)
		})
	}
	for name, n := range fields {
		msg, err := protoregistry.GlobalTypes.FindMessageByName(name)
		require.NoError(t, err)
		all := msg.Descriptor().Fields()
		known := 0
		for i := range all.Len() {
			if all.Get(i).Number() < ours {
				known++
			}
		}
		require.Equal(t, n, known, "fields of %s", name)
	}
	require.Len(t, fields, 76)
}

func checkField(t *testing.T, msg protoreflect.MessageType, number protowire.Number, name, kind string, repeated bool) {
	field := msg.Descriptor().Fields().ByName(protoreflect.Name(name))
	require.NotNil(t, field, "no field of that name")
	require.Equal(t, repeated || kind == "map", field.IsList() || field.IsMap())
	wire, want := fieldBytes(t, number, kind, repeated)
	m, ok := msg.New().Interface().(vt)
	require.True(t, ok)
	require.NoError(t, m.UnmarshalVT(wire))
	got := m.ProtoReflect().Get(field)
	switch {
	case field.IsMap():
		require.Equal(t, 1, got.Map().Len())
	case field.IsList():
		require.Equal(t, 1, got.List().Len())
		got = got.List().Get(0)
		fallthrough
	default:
		if field.Kind() == protoreflect.MessageKind {
			require.True(t, got.Message().IsValid())
		} else {
			require.Equal(t, want, got.Interface())
		}
	}
	out, err := m.MarshalVT()
	require.NoError(t, err)
	if kind != "map" {
		require.Equal(t, wire, out)
	}
}

// fieldBytes returns a field on the wire, and what it means.
func fieldBytes(t *testing.T, number protowire.Number, kind string, repeated bool) (wire []byte, want any) {
	tag := func(typ protowire.Type) []byte { return protowire.AppendTag(nil, number, typ) }
	var v []byte
	typ := protowire.VarintType
	switch kind {
	case "string":
		return protowire.AppendString(tag(protowire.BytesType), "x"), "x"
	case "bytes":
		return protowire.AppendBytes(tag(protowire.BytesType), []byte("x")), []byte("x")
	case "message":
		return protowire.AppendBytes(tag(protowire.BytesType), nil), nil
	case "map":
		return protowire.AppendBytes(tag(protowire.BytesType), protowire.AppendString([]byte{0x0a}, "k")), nil
	case "bool":
		v, want = protowire.AppendVarint(nil, 1), true
	case "int64":
		v, want = protowire.AppendVarint(nil, math.MaxUint64-2), int64(-3)
	case "int32":
		v, want = protowire.AppendVarint(nil, math.MaxUint64-2), int32(-3)
	case "uint64":
		v, want = protowire.AppendVarint(nil, math.MaxUint64), uint64(math.MaxUint64)
	case "uint32":
		v, want = protowire.AppendVarint(nil, math.MaxUint32), uint32(math.MaxUint32)
	case "sint64":
		v, want = protowire.AppendVarint(nil, 5), int64(-3)
	case "sint32":
		v, want = protowire.AppendVarint(nil, 5), int32(-3)
	case "enum":
		v, want = protowire.AppendVarint(nil, 1), protoreflect.EnumNumber(1)
	case "double":
		v, want, typ = protowire.AppendFixed64(nil, math.Float64bits(1.5)), 1.5, protowire.Fixed64Type
	default:
		t.Fatalf("kind %s", kind)
	}
	if repeated { // packed
		return protowire.AppendBytes(tag(protowire.BytesType), v), want
	}
	return append(tag(typ), v...), want
}

func TestWireEnums(t *testing.T) {
	for value, want := range map[interface {
		Number() protoreflect.EnumNumber
	}]int{
		storepb.LabelMatcher_EQ: 0, storepb.LabelMatcher_NEQ: 1, storepb.LabelMatcher_RE: 2, storepb.LabelMatcher_NRE: 3,
		storepb.Chunk_XOR: 0, storepb.Chunk_HISTOGRAM: 1, storepb.Chunk_FLOAT_HISTOGRAM: 2,
		storepb.Chunk_FIRNLINE_XOR2: 104, storepb.Chunk_FIRNLINE_HISTOGRAM_ST: 105, storepb.Chunk_FIRNLINE_FLOAT_HISTOGRAM_ST: 106,
		storepb.Aggr_RAW: 0, storepb.Aggr_COUNT: 1, storepb.Aggr_SUM: 2, storepb.Aggr_MIN: 3, storepb.Aggr_MAX: 4, storepb.Aggr_COUNTER: 5,
		storepb.PartialResponseStrategy_WARN: 0, storepb.PartialResponseStrategy_ABORT: 1,
		storepb.EngineType_ENGINE_DEFAULT: 0, storepb.EngineType_ENGINE_PROMETHEUS: 1, storepb.EngineType_ENGINE_THANOS: 2,
		storepb.RulesRequest_ALL: 0, storepb.RulesRequest_ALERT: 1, storepb.RulesRequest_RECORD: 2,
		storepb.AlertState_ALERT_UNKNOWN: 0, storepb.AlertState_ALERT_INACTIVE: 1, storepb.AlertState_ALERT_PENDING: 2, storepb.AlertState_ALERT_FIRING: 3,
		storepb.TargetsRequest_ANY: 0, storepb.TargetsRequest_ACTIVE: 1, storepb.TargetsRequest_DROPPED: 2,
		storepb.TargetHealth_TARGET_DOWN: 0, storepb.TargetHealth_TARGET_UP: 1, storepb.TargetHealth_TARGET_UNKNOWN: 2,
		prompb.Histogram_UNKNOWN: 0, prompb.Histogram_YES: 1, prompb.Histogram_NO: 2, prompb.Histogram_GAUGE: 3,
	} {
		require.EqualValues(t, want, value.Number(), "%T %v", value, value)
	}
}

func TestWireMethods(t *testing.T) {
	var got []string
	for _, d := range []grpc.ServiceDesc{
		infopb.Info_ServiceDesc, storepb.Store_ServiceDesc, storepb.Query_ServiceDesc, storepb.Rules_ServiceDesc, storepb.Targets_ServiceDesc,
		storepb.Metadata_ServiceDesc, storepb.Exemplars_ServiceDesc, storepb.Status_ServiceDesc,
	} {
		for _, m := range d.Methods {
			got = append(got, "/"+d.ServiceName+"/"+m.MethodName)
		}
		for _, s := range d.Streams {
			require.True(t, s.ServerStreams && !s.ClientStreams)
			got = append(got, "/"+d.ServiceName+"/"+s.StreamName+" (stream)")
		}
	}
	slices.Sort(got)
	require.Equal(t, []string{
		"/thanos.Exemplars/Exemplars (stream)",
		"/thanos.Metadata/MetricMetadata (stream)",
		"/thanos.Query/Query (stream)",
		"/thanos.Query/QueryRange (stream)",
		"/thanos.Rules/Rules (stream)",
		"/thanos.Status/TSDBStatistics (stream)",
		"/thanos.Store/LabelNames",
		"/thanos.Store/LabelValues",
		"/thanos.Store/Series (stream)",
		"/thanos.Targets/Targets (stream)",
		"/thanos.info.Info/Info",
	}, got)
	require.EqualValues(t, "hintspb.SeriesRequestHints", (&hintspb.SeriesRequestHints{}).ProtoReflect().Descriptor().FullName())
}

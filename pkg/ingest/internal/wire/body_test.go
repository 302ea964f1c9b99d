package wire

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

func gzipped(p []byte) []byte {
	var w bytes.Buffer
	z := gzip.NewWriter(&w)
	z.Write(p)
	z.Close()
	return w.Bytes()
}

func zstded(p []byte) []byte {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return z.EncodeAll(p, nil)
}

func TestBody(t *testing.T) {
	d := New(defaults(), time.Now)
	r := rand.New(rand.NewSource(1))
	for _, size := range []int{0, 1, 1000, 300_000, 5 << 20} {
		plain := make([]byte, size)
		for i := range plain {
			plain[i] = byte(r.Intn(4))
		}
		for encoding, sent := range map[string][]byte{
			"": plain, "identity": plain, "snappy": snappy.Encode(nil, plain), " GZIP ": gzipped(plain), "zstd": zstded(plain)} {
			for _, length := range []int64{-1, int64(len(sent)), 0, 1 << 20} { // a wrong one does no harm
				body, err := d.Body(bytes.NewReader(sent), encoding, length, anyRoom)
				require.NoError(t, err, encoding)
				require.True(t, bytes.Equal(plain, body.b), "%s of %d bytes, declared %d", encoding, size, length)
				require.Equal(t, size, body.Len())
				body.Free()
			}
		}
	}
}

// RELIABILITY P12, section 5 Bombs: declared sizes are checked before memory is taken.
func TestBodyRefusals(t *testing.T) {
	cfg := defaults()
	cfg.MaxBodyBytes, cfg.MaxDecodedBytes = 1<<20, 2<<20
	d := New(cfg, time.Now)
	bomb := append(binary.AppendUvarint(nil, 2_700_000_000), make([]byte, 42)...)
	require.Len(t, bomb, 47)
	zeros := make([]byte, 64<<20)
	for _, c := range []struct {
		name, encoding string
		length         int64
		body           []byte
		reason         refuse.Reason
		want           string
	}{
		{"unknown encoding", "br", -1, nil, refuse.UnsupportedType, `content encoding "br" is unknown`},
		{"two encodings", "snappy, gzip", -1, nil, refuse.UnsupportedType, "unknown"},
		{"declared too large", "", 1<<20 + 1, nil, refuse.RequestTooLarge, "max-body-bytes"},
		{"too large", "", -1, zeros[:1<<20+1], refuse.RequestTooLarge, "max-body-bytes"},
		{"snappy bomb", "snappy", 47, bomb, refuse.RequestTooLarge, "2700000000 bytes decompressed"},
		{"snappy that can't hold it", "snappy", -1, append(binary.AppendUvarint(nil, 1<<20), 0, 'a'), refuse.BadRequest, "more than a block of 5 can hold"},
		{"snappy without header", "snappy", -1, bytes.Repeat([]byte{0xff}, 12), refuse.BadRequest, "declares no size"},
		{"empty snappy", "snappy", 0, nil, refuse.BadRequest, "declares no size"},
		{"corrupt snappy", "snappy", -1, []byte{4, 0xff, 0xff, 0xff}, refuse.BadRequest, "malformed snappy at byte 1: "},
		{"gzip bomb", "gzip", -1, gzipped(zeros), refuse.RequestTooLarge, "max-decoded-bytes"},
		{"no gzip", "gzip", -1, []byte("hello"), refuse.BadRequest, "malformed gzip at byte 0"},
		{"cut gzip", "gzip", -1, gzipped([]byte("hello"))[:20], refuse.BadRequest, "malformed gzip"},
		{"zstd bomb that declares its size", "zstd", -1, zstded(zeros), refuse.RequestTooLarge, "67108864 bytes decompressed"},
		{"zstd bomb that doesn't", "zstd", -1, zstdStream(zeros), refuse.RequestTooLarge, "more than 2097152 bytes"},
		{"no zstd", "zstd", -1, []byte("hello"), refuse.BadRequest, "malformed zstd"},
		{"window", "zstd", -1, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 1, 0, 0}, refuse.RequestTooLarge, "window"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := d.Body(bytes.NewReader(c.body), c.encoding, c.length, anyRoom)
			runtime.ReadMemStats(&after)
			require.ErrorContains(t, err, c.want)
			require.Equal(t, c.reason, refuse.ReasonOf(err))
			most := uint64(8 << 20)
			if c.encoding == "zstd" {
				most += zstdWindow
			}
			require.Less(t, after.TotalAlloc-before.TotalAlloc, most)
		})
	}
}

// anyRoom grants all.
func anyRoom(int64) error { return nil }

// RELIABILITY P7: memory is asked for before it is taken, and what inflates to more than there
// is room for is given up early.
func TestBodyAsksForRoom(t *testing.T) {
	cfg := defaults()
	plain := []byte(strings.Repeat("0123456789abcdef", 1<<18)) // 4 MiB
	for _, c := range []struct {
		encoding string
		sent     []byte
	}{{"", plain}, {"snappy", snappy.Encode(nil, plain)}, {"gzip", gzipped(plain)}, {"zstd", zstdStream(plain)}} {
		for _, length := range []int64{-1, int64(len(c.sent))} {
			d, asked := New(cfg, time.Now), int64(0) // without buffers of others
			body, err := d.Body(bytes.NewReader(c.sent), c.encoding, length, func(n int64) error {
				require.Positive(t, n)
				asked += n
				return nil
			})
			require.NoError(t, err)
			least := int64(len(c.sent))
			if c.encoding != "" {
				least += int64(len(plain))
			}
			most := 2 * least
			if c.encoding == "zstd" {
				least, most = least+zstdWindow, most+zstdWindow
			}
			require.GreaterOrEqual(t, asked, least, c.encoding)
			require.LessOrEqual(t, asked, most, c.encoding)
			require.Len(t, body.b, len(plain))
			body.Free()

			full, granted, limit := refuse.Errorf(refuse.Overloaded, "", "full"), int64(0), int64(len(c.sent))+100_000
			if c.encoding == "" {
				limit = 100_000
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err = New(cfg, time.Now).Body(bytes.NewReader(c.sent), c.encoding, length, func(n int64) error {
				if granted+n > limit {
					return full
				}
				granted += n
				return nil
			})
			runtime.ReadMemStats(&after)
			require.ErrorIs(t, err, full, c.encoding)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20), c.encoding)
		}
	}
}

// What zstd frames make a decompressor hold counts, that of later frames too.
func TestZstdWindows(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // 2 MiB
	d := New(defaults(), time.Now)
	for _, c := range []struct {
		sent, want []byte
		window     int64 // at least
	}{
		{zstded([]byte("hello")), []byte("hello"), 0},
		{append(zstded([]byte("hello")), zstded([]byte(" world"))...), []byte("hello world"), 0},
		{zstdStream(large), large, zstdWindow},
		{append(zstded([]byte("hello")), zstdStream(large)...), append([]byte("hello"), large...), zstdWindow},
	} {
		for range 2 { // with a decompressor of its own, and one that was used
			asked := int64(0)
			body, err := d.Body(bytes.NewReader(c.sent), "zstd", -1, func(n int64) error { asked += n; return nil })
			require.NoError(t, err)
			require.True(t, bytes.Equal(c.want, body.b))
			body.Free()
			require.GreaterOrEqual(t, asked, c.window+int64(len(c.sent)+len(c.want)))
			require.Equal(t, c.window > 0, asked > zstdWindow)
		}
	}
}

func zstdStream(p []byte) []byte {
	var w bytes.Buffer
	z, err := zstd.NewWriter(&w)
	if err != nil {
		panic(err)
	}
	z.Write(p)
	z.Close()
	return w.Bytes()
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestBodyConnectionLost(t *testing.T) {
	_, err := New(defaults(), time.Now).Body(io.MultiReader(bytes.NewReader([]byte("abc")), failing{}), "", 10, anyRoom)
	require.ErrorContains(t, err, "read the body at byte 3")
	require.Equal(t, refuse.BadRequest, refuse.ReasonOf(err))
}

func TestNegotiate(t *testing.T) {
	for _, c := range []struct {
		contentType string
		otlp        bool
		want        string
	}{
		{"", false, "remote write 1"},
		{"application/x-protobuf", false, "remote write 1"},
		{"application/x-protobuf;proto=prometheus.WriteRequest", false, "remote write 1"},
		{"application/x-protobuf; proto=io.prometheus.write.v2.Request", false, "remote write 2"},
		{"Application/X-Protobuf;Proto=io.prometheus.write.v2.Request", false, "remote write 2"},
		{"application/x-protobuf;proto=io.prometheus.write.v3.Request", false, "415"},
		{"application/json", false, "415"},
		{"text/plain", false, "415"},
		{"/;;", false, "415"},
		{"application/x-protobuf", true, "OTLP protobuf"},
		{"application/json; charset=utf-8", true, "OTLP JSON"},
		{"", true, "415"},
		{"text/plain", true, "415"},
	} {
		f, err := Negotiate(c.contentType, c.otlp)
		if err != nil {
			require.Equal(t, "415", c.want, c.contentType)
			require.Equal(t, http.StatusUnsupportedMediaType, refuse.ReasonOf(err).Status())
			continue
		}
		require.Equal(t, c.want, f.String(), c.contentType)
	}
	for _, c := range []struct {
		f              Format
		header, answer string // "": refused
	}{
		{RW1, "", "snappy"}, {RW1, "gzip", "gzip"}, {RW2, "", "snappy"}, {RW2, "Snappy", "Snappy"}, {RW2, "gzip", ""}, {RW2, "identity", ""},
		{OTLPProto, "", "identity"}, {OTLPJSON, "zstd", "zstd"},
	} {
		got, err := c.f.Encoding(c.header)
		require.Equal(t, c.answer, got)
		if c.answer == "" {
			require.Equal(t, refuse.UnsupportedType, refuse.ReasonOf(err))
		}
	}
}

// The labels and histograms of a Batch outlive it; its body is used again.
func TestLabelsOutliveTheBatch(t *testing.T) {
	d := New(defaults(), time.Now)
	p, q := snappy.Encode(nil, loadRW1(50)), snappy.Encode(nil, bytes.Repeat([]byte{0xff}, 20_000))
	want, err := twin1(loadRW1(50))
	require.NoError(t, err)
	body, err := d.Body(bytes.NewReader(p), "snappy", -1, anyRoom)
	require.NoError(t, err)
	b := &batch.Batch{}
	require.NoError(t, d.Decode(RW1, body, b, Sender{}))
	ls, err := b.Labels(0)
	require.NoError(t, err)
	b.Free()
	for range 5 { // overwrites what the pool hands out
		body, err = d.Body(bytes.NewReader(q), "snappy", -1, anyRoom)
		require.NoError(t, err)
		body.Free()
	}
	require.Contains(t, want, ls.String())
}

func FuzzBody(f *testing.F) {
	cfg := defaults()
	cfg.MaxBodyBytes, cfg.MaxDecodedBytes = 1<<20, 1<<20
	d := New(cfg, time.Now)
	encodings := []string{"snappy", "gzip", "zstd"}
	f.Add(byte(0), snappy.Encode(nil, []byte("hello hello hello")))
	f.Add(byte(0), append(binary.AppendUvarint(nil, 2_700_000_000), make([]byte, 42)...))
	f.Add(byte(1), gzipped([]byte("hello")))
	f.Add(byte(2), zstded([]byte("hello")))
	f.Add(byte(2), zstdStream(bytes.Repeat([]byte("a"), 100_000)))
	f.Fuzz(func(t *testing.T, encoding byte, p []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		body, err := d.Body(bytes.NewReader(p), encodings[int(encoding)%3], int64(len(p)), anyRoom)
		runtime.ReadMemStats(&after)
		// Tables of a decompressor, a window of zstd, and the output at its limit.
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(30*len(p)+20<<20))
		if err != nil {
			require.Equal(t, 4, refuse.ReasonOf(err).Status()/100, err)
			return
		}
		require.LessOrEqual(t, body.Len(), 1<<20)
		body.Free()
	})
}

package block_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
)

// TestMetaOfThanos reads a meta.json with every key there is and writes it back.
func TestMetaOfThanos(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "meta_thanos.json"))
	require.NoError(t, err)
	m, err := block.ParseMeta(ulid.MustParse("01HZZZZZZZZZZZZZZZZZZZZZZZ"), data)
	require.NoError(t, err)
	require.EqualValues(t, 300000, m.Resolution())
	require.Len(t, m.Compaction.Parents, 1)
	require.Equal(t, []string{"from-out-of-order"}, m.Compaction.Hints)
	require.EqualValues(t, 7, m.Stats.NumTombstones)
	require.EqualValues(t, 1234567+8901, m.SizeBytes())
	require.JSONEq(t, `{"parquet_migrated":true}`, string(m.Thanos.Extensions))
	again, err := m.Encode()
	require.NoError(t, err)

	// All but the keys that nobody knows.
	var want map[string]any
	require.NoError(t, json.Unmarshal(data, &want))
	delete(want, "unknown")
	delete(want["thanos"].(map[string]any), "unknown")
	wanted, err := json.Marshal(want)
	require.NoError(t, err)
	require.JSONEq(t, string(wanted), string(again))
}

func TestMetaDefaults(t *testing.T) {
	id := testID(1)
	m, err := block.ParseMeta(id, []byte(`{"version":1,"ulid":"`+id.String()+`","minTime":1,"maxTime":2}`))
	require.NoError(t, err)
	require.Equal(t, epoch.Unix()+1, m.Uploaded().Unix(), "the time in the ULID stands in")
	data, err := m.Encode()
	require.NoError(t, err)
	for _, key := range []string{`"index_stats": {}`, `"upload_time": "0001-01-01T00:00:00Z"`, `"labels": {}`, `"downsample": {`, `"stats": {}`} {
		require.Contains(t, string(data), key, "always written")
	}
}

func TestMetaErrors(t *testing.T) {
	id := testID(1)
	good := `{"version":1,"ulid":"` + id.String() + `","minTime":1,"maxTime":2}`
	for name, c := range map[string]struct {
		data string
		want error
		says string
	}{
		"empty":             {"", block.ErrCorrupt, "0 bytes"},
		"torn":              {good[:20], block.ErrCorrupt, "restore"},
		"no version":        {`{}`, block.ErrUnknownVersion, "0"},
		"newer":             {strings.Replace(good, `:1,"ulid`, `:3,"ulid`, 1), block.ErrUnknownVersion, "upgrade"},
		"newer section":     {strings.Replace(good, "{", `{"thanos":{"version":2},`, 1), block.ErrUnknownVersion, "thanos section"},
		"another block":     {strings.Replace(good, id.String(), testID(2).String(), 1), block.ErrCorrupt, testID(2).String()},
		"times":             {strings.Replace(good, `"minTime":1`, `"minTime":5`, 1), block.ErrCorrupt, "after"},
		"climbing file":     {strings.Replace(good, "{", `{"thanos":{"files":[{"rel_path":"../x"}]},`, 1), block.ErrCorrupt, "../x"},
		"negative size":     {strings.Replace(good, "{", `{"thanos":{"files":[{"rel_path":"x","size_bytes":-1}]},`, 1), block.ErrCorrupt, "-1"},
		"climbing segment":  {strings.Replace(good, "{", `{"thanos":{"segment_files":["../1"]},`, 1), block.ErrCorrupt, "../1"},
		"of another nature": {`[1]`, block.ErrCorrupt, "meta.json"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := block.ParseMeta(id, []byte(c.data))
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, id.String())
		})
	}
	_, err := block.ReadMeta(filepath.Join(t.TempDir(), id.String()))
	require.ErrorIs(t, err, block.ErrPartial)
	_, err = block.FetchMeta(context.Background(), newFaulty(), id)
	require.ErrorIs(t, err, block.ErrPartial)
}

// FuzzParseMeta: whatever is taken comes out the same after writing and reading.
func FuzzParseMeta(f *testing.F) {
	for _, name := range []string{"meta_thanos.json", "meta_uploaded.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var id struct {
			ULID ulid.ULID `json:"ulid"`
		}
		_ = json.Unmarshal(data, &id) // what isn't JSON is ParseMeta's to refuse
		m, err := block.ParseMeta(id.ULID, data)
		if err != nil {
			return
		}
		once, err := m.Encode()
		require.NoError(t, err)
		back, err := block.ParseMeta(id.ULID, once)
		require.NoError(t, err)
		twice, err := back.Encode()
		require.NoError(t, err)
		require.Equal(t, string(once), string(twice))
	})
}

func TestSplitName(t *testing.T) {
	id := testID(1)
	for name, want := range map[string]string{
		id.String() + "/meta.json":             "meta.json",
		id.String() + "/chunks/000001":         "chunks/000001",
		id.String() + "/":                      "",
		id.String():                            "no",
		strings.ToLower(id.String()) + "/":     "no",
		id.String() + "/../x":                  "no",
		id.String() + "/./x":                   "no",
		"firnline/leases/x":                    "no",
		"debug/metas/" + id.String():           "no",
		"":                                     "no",
		"/":                                    "no",
		"8ZZZZZZZZZZZZZZZZZZZZZZZZZ/meta.json": "no", // more than 128 bits
	} {
		got, rel, ok := block.SplitName(name)
		if want == "no" {
			require.False(t, ok, name)
			continue
		}
		require.True(t, ok, name)
		require.Equal(t, want, rel)
		require.Equal(t, name, block.Name(got, rel))
	}
}

func TestMarks(t *testing.T) {
	ctx, bkt, id := context.Background(), newFaulty(), testID(1)
	_, err := block.ReadDeletionMark(ctx, bkt, id)
	require.ErrorIs(t, err, block.ErrNoMark)

	require.NoError(t, block.WriteDeletionMark(ctx, bkt, block.DeletionMark{ID: id, Details: "too old", DeletionTime: 17}))
	require.NoError(t, block.WriteDeletionMark(ctx, bkt, block.DeletionMark{ID: id, DeletionTime: 99}))
	d, err := block.ReadDeletionMark(ctx, bkt, id)
	require.NoError(t, err)
	require.Equal(t, &block.DeletionMark{ID: id, Version: 1, Details: "too old", DeletionTime: 17}, d, "the first date counts")
	require.Equal(t, "{\n\t\"id\": \""+id.String()+"\",\n\t\"version\": 1,\n\t\"details\": \"too old\",\n\t\"deletion_time\": 17\n}\n",
		string(bkt.Objects()[id.String()+"/deletion-mark.json"]))

	require.NoError(t, block.WriteNoCompactMark(ctx, bkt, block.NoCompactMark{ID: id, NoCompactTime: 1, Reason: block.ReasonManual}))
	nc, err := block.ReadNoCompactMark(ctx, bkt, id)
	require.NoError(t, err)
	require.Equal(t, block.ReasonManual, nc.Reason)
	require.NoError(t, block.WriteNoDownsampleMark(ctx, bkt, block.NoDownsampleMark{ID: id, NoDownsampleTime: 1, Reason: block.ReasonManual}))
	nd, err := block.ReadNoDownsampleMark(ctx, bkt, id)
	require.NoError(t, err)
	require.EqualValues(t, 1, nd.NoDownsampleTime)

	require.NoError(t, block.Unmark(ctx, bkt, id, block.NoCompactMarkFilename))
	require.NoError(t, block.Unmark(ctx, bkt, id, block.NoCompactMarkFilename))
	_, err = block.ReadNoCompactMark(ctx, bkt, id)
	require.ErrorIs(t, err, block.ErrNoMark)

	for data, want := range map[string]error{
		`{"id":"` + id.String() + `","version":2}`:        block.ErrUnknownVersion,
		`{"id":{"of":1},"version":2,"details":[]}`:        block.ErrUnknownVersion,
		`{"id":"` + testID(2).String() + `","version":1}`: block.ErrCorrupt,
		`{"id":"` + id.String()[:4]:                       block.ErrCorrupt,
	} {
		require.NoError(t, bkt.Memory.Upload(ctx, id.String()+"/deletion-mark.json", strings.NewReader(data)))
		m, err := block.ReadDeletionMark(ctx, bkt, id)
		require.ErrorIs(t, err, want)
		require.ErrorContains(t, err, id.String())
		require.Nil(t, m)
	}
}

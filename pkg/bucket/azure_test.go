package bucket_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/bucket/buckettest"
)

// fakeAzure is as much of Azure's blob service as a bucket asks for. It does not
// look at signatures.
type fakeAzure struct {
	sync.Mutex
	container string
	blobs     map[string]azureBlob
	writes    int
}

type azureBlob struct {
	body     []byte
	etag     string
	modified time.Time
}

func (f *fakeAzure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.Lock()
	defer f.Unlock()
	container, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/account/"), "/")
	if container != f.container {
		azureError(w, http.StatusNotFound, "ContainerNotFound")
		return
	}
	if r.URL.Query().Get("comp") == "list" {
		f.list(w, r.URL.Query().Get("prefix"), r.URL.Query().Get("delimiter"))
		return
	}
	blob, exists := f.blobs[name]
	switch {
	case r.Method == http.MethodPut:
		f.put(w, r, name)
	case !exists:
		azureError(w, http.StatusNotFound, "BlobNotFound")
	case r.Method == http.MethodDelete:
		delete(f.blobs, name)
		w.WriteHeader(http.StatusAccepted)
	default:
		w.Header().Set("ETag", blob.etag)
		if span := r.Header.Get("X-Ms-Range"); span != "" {
			r.Header.Set("Range", span)
		}
		http.ServeContent(w, r, "", blob.modified, bytes.NewReader(blob.body))
	}
}

func azureError(w http.ResponseWriter, status int, code string) {
	w.Header().Set("X-Ms-Error-Code", code)
	w.WriteHeader(status)
}

func (f *fakeAzure) put(w http.ResponseWriter, r *http.Request, name string) {
	old, exists := f.blobs[name]
	switch match := r.Header.Get("If-Match"); {
	case r.Header.Get("If-None-Match") == "*" && exists:
		azureError(w, http.StatusConflict, "BlobAlreadyExists")
		return
	case match != "" && match != old.etag:
		azureError(w, http.StatusPreconditionFailed, "ConditionNotMet")
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		azureError(w, http.StatusBadRequest, "InvalidInput")
		return
	}
	f.writes++
	blob := azureBlob{body, fmt.Sprintf(`"0x%X"`, f.writes), time.Now()}
	f.blobs[name] = blob
	w.Header().Set("ETag", blob.etag)
	w.Header().Set("Last-Modified", blob.modified.UTC().Format(http.TimeFormat))
	w.WriteHeader(http.StatusCreated)
}

func (f *fakeAzure) list(w http.ResponseWriter, prefix, delimiter string) {
	var blobs, folders strings.Builder
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(f.blobs)) {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		folder, _, deeper := strings.Cut(rest, "/")
		if b := f.blobs[name]; delimiter == "" || !deeper {
			fmt.Fprintf(&blobs, "<Blob><Name>%s</Name><Properties><Content-Length>%d</Content-Length><Last-Modified>%s</Last-Modified></Properties></Blob>",
				name, len(b.body), b.modified.UTC().Format(http.TimeFormat))
		} else if !seen[folder] {
			seen[folder] = true
			fmt.Fprintf(&folders, "<BlobPrefix><Name>%s%s/</Name></BlobPrefix>", prefix, folder)
		}
	}
	w.Header().Set("Content-Type", "application/xml")
	_, _ = fmt.Fprintf(w, "<EnumerationResults><Blobs>%s%s</Blobs><NextMarker/></EnumerationResults>", blobs.String(), folders.String())
}

// azureYAML names a container of an account on the server at url.
func azureYAML(url, container string) string {
	key := base64.StdEncoding.EncodeToString([]byte("key"))
	return fmt.Sprintf(`
type: AZURE
prefix: p
config:
  container: %s
  storage_account: account
  storage_connection_string: DefaultEndpointsProtocol=http;AccountName=account;AccountKey=%s;BlobEndpoint=%s/account;
`, container, key, url)
}

func TestFakeAzure(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		srv := httptest.NewServer(&fakeAzure{container: "metrics", blobs: map[string]azureBlob{}})
		t.Cleanup(srv.Close)
		return open(t, azureYAML(srv.URL, "metrics"))
	})
	srv := httptest.NewServer(&fakeAzure{container: "metrics", blobs: map[string]azureBlob{}})
	defer srv.Close()
	err := startup(t, azureYAML(srv.URL, "other"))
	require.ErrorContains(t, err, "storage_create_container: true")
	require.ErrorContains(t, err, "404 ContainerNotFound")
	require.ErrorContains(t, err, `"other" at `+strings.TrimPrefix(srv.URL, "http://"))
	require.NotContains(t, err.Error(), "\n")
	h := open(t, azureYAML(srv.URL, "metrics"))
	require.True(t, bucket.SelfTest(t.Context(), h, time.Now).Conditional)
}

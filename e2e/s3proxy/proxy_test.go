package s3proxy_test

import (
	"bytes"
	"context"
	"io"
	"regexp"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/s3proxy"
	"github.com/firnline/firnline/e2e/stack"
)

// start runs MinIO with a proxy before it and returns a client of each.
func start(t *testing.T) (p *s3proxy.Proxy, through, direct *minio.Client) {
	t.Helper()
	addr, err := stack.FreeAddr()
	require.NoError(t, err)
	m, err := stack.StartMinIO(t.Context(), t.TempDir(), addr, "bucket")
	require.NoError(t, err)
	t.Cleanup(m.Kill)
	p, err = s3proxy.Start(s3proxy.Target{Addr: addr, AccessKey: stack.AccessKey, SecretKey: stack.SecretKey})
	require.NoError(t, err)
	t.Cleanup(p.Close)
	direct, err = m.Client()
	require.NoError(t, err)
	through, err = minio.New(p.Addr(), &minio.Options{Creds: credentials.NewStaticV4(stack.AccessKey, stack.SecretKey, ""), MaxRetries: 1})
	require.NoError(t, err)
	return p, through, direct
}

func put(c *minio.Client, key, body string, opts minio.PutObjectOptions) error {
	_, err := c.PutObject(context.Background(), "bucket", key, bytes.NewReader([]byte(body)), int64(len(body)), opts)
	return err
}

func get(t *testing.T, c *minio.Client, key string) (string, error) {
	t.Helper()
	o, err := c.GetObject(t.Context(), "bucket", key, minio.GetObjectOptions{})
	require.NoError(t, err)
	defer o.Close()
	b, err := io.ReadAll(o)
	return string(b), err
}

func keys(c *minio.Client) (out []string) {
	for o := range c.ListObjects(context.Background(), "bucket", minio.ListObjectsOptions{Recursive: true}) {
		out = append(out, o.Key)
	}
	return out
}

func TestFaults(t *testing.T) {
	p, through, direct := start(t)
	ctx := t.Context()
	plain := minio.PutObjectOptions{}
	inject := func(t *testing.T, m s3proxy.Match, f s3proxy.Fault) { t.Cleanup(p.Inject(m, f)) }
	require.NoError(t, put(through, "a", "0123456789", plain), "signed requests pass")
	got, err := get(t, through, "a")
	require.NoError(t, err)
	require.Equal(t, "0123456789", got)

	t.Run("status", func(t *testing.T) {
		defer p.Inject(s3proxy.Match{Ops: []s3proxy.Op{s3proxy.Get}, Times: 1}, s3proxy.Fault{Status: 403})()
		_, err := get(t, through, "a")
		require.Equal(t, "AccessDenied", minio.ToErrorResponse(err).Code)
		_, err = get(t, through, "a")
		require.NoError(t, err, "Times is over")
	})
	t.Run("cut and flip", func(t *testing.T) {
		remove := p.Inject(s3proxy.Match{Ops: []s3proxy.Op{s3proxy.Get, s3proxy.GetRange}}, s3proxy.Fault{CutAfter: 4})
		_, err := get(t, through, "a")
		require.Error(t, err)
		remove()
		defer p.Inject(s3proxy.Match{Ops: []s3proxy.Op{s3proxy.Get}}, s3proxy.Fault{FlipAt: 1})()
		got, err := get(t, through, "a")
		require.NoError(t, err)
		require.Equal(t, "\xcf123456789", got)
	})
	t.Run("hide", func(t *testing.T) {
		defer p.Inject(s3proxy.Match{Ops: []s3proxy.Op{s3proxy.List}}, s3proxy.Fault{HideKeys: regexp.MustCompile("^a$")})()
		require.Empty(t, keys(through))
		require.Equal(t, []string{"a"}, keys(direct))
	})
	t.Run("answer lost", func(t *testing.T) {
		defer p.Inject(s3proxy.Match{Key: regexp.MustCompile("^lost$"), Times: 1}, s3proxy.Fault{LoseAnswer: true})()
		require.Error(t, put(through, "lost", "x", plain))
		got, err := get(t, direct, "lost")
		require.NoError(t, err)
		require.Equal(t, "x", got)
	})
	t.Run("stores less", func(t *testing.T) {
		inject(t, s3proxy.Match{Key: regexp.MustCompile("^short$")}, s3proxy.Fault{StoreLess: 3})
		inject(t, s3proxy.Match{Key: regexp.MustCompile("^none$"), Ops: []s3proxy.Op{s3proxy.Put}}, s3proxy.Fault{StoreNothing: true})
		require.NoError(t, put(through, "short", "0123456789", plain))
		got, err := get(t, direct, "short")
		require.NoError(t, err)
		require.Equal(t, "0123456", got)
		require.NoError(t, put(through, "none", "x", plain))
		_, err = get(t, direct, "none")
		require.Equal(t, "NoSuchKey", minio.ToErrorResponse(err).Code)
	})
	t.Run("conditions", func(t *testing.T) {
		create := minio.PutObjectOptions{}
		create.SetMatchETagExcept("*")
		require.NoError(t, put(through, "once", "1", create))
		require.Equal(t, "PreconditionFailed", minio.ToErrorResponse(put(through, "once", "2", create)).Code)
		inject(t, s3proxy.Match{Key: regexp.MustCompile("^once$")}, s3proxy.Fault{DropConditions: true})
		require.NoError(t, put(through, "once", "3", create))
	})
	t.Run("date", func(t *testing.T) {
		inject(t, s3proxy.Match{Ops: []s3proxy.Op{s3proxy.Head}}, s3proxy.Fault{DateShift: -time.Hour})
		info, err := through.StatObject(ctx, "bucket", "a", minio.StatObjectOptions{})
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(-time.Hour), info.LastModified, 10*time.Minute)
	})
	t.Run("hang", func(t *testing.T) {
		inject(t, s3proxy.Match{Key: regexp.MustCompile("^hang$")}, s3proxy.Fault{Hang: true})
		ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		_, err := through.StatObject(ctx, "bucket", "hang", minio.StatObjectOptions{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestLog(t *testing.T) {
	p, through, _ := start(t)
	require.NoError(t, put(through, "k", "0123456789", minio.PutObjectOptions{}))
	p.Reset()
	opts := minio.GetObjectOptions{}
	require.NoError(t, opts.SetRange(2, 5))
	o, err := through.GetObject(t.Context(), "bucket", "k", opts)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, o)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(p.Log()) == 1 }, time.Minute, 10*time.Millisecond)
	r := p.Log()[0]
	require.Equal(t, s3proxy.GetRange, r.Op)
	require.Equal(t, "k", r.Key)
	require.Equal(t, int64(4), r.Bytes)
	require.Equal(t, 206, r.Status)
}

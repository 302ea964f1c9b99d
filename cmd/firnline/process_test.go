package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/proctest"
)

// daemon is a component in a process of its own.
type daemon struct {
	*exec.Cmd
	http   string
	stderr *bytes.Buffer
	exited chan struct{}
	err    error // valid once exited
}

func storeArgs(t *testing.T, httpAddr, grpcAddr string) []string {
	t.Helper()
	return append([]string{"store", "--http-address=" + httpAddr, "--grpc-address=" + grpcAddr, "--data-dir=" + t.TempDir()}, bucketArg(t))
}

func bucketArg(t *testing.T) string {
	t.Helper()
	return "--objstore.config={type: FILESYSTEM, config: {directory: " + t.TempDir() + "}}"
}

func startStore(t *testing.T, args ...string) *daemon {
	t.Helper()
	return startDaemon(t, func(http string) []string { return append(storeArgs(t, http, proctest.Addr(t)), args...) })
}

// startDaemon starts a command line, made for an address, and waits until it is ready.
func startDaemon(t *testing.T, args func(http string) []string) *daemon {
	t.Helper()
	d := &daemon{http: proctest.Addr(t), stderr: &bytes.Buffer{}, exited: make(chan struct{})}
	d.Cmd = exec.Command(os.Args[0], args(d.http)...)
	d.Env = append(os.Environ(), asFirnline+"=1")
	d.Stderr = d.stderr
	require.NoError(t, d.Start())
	go func() {
		d.err = d.Wait()
		close(d.exited)
	}()
	t.Cleanup(func() {
		_ = d.Process.Kill() // it may have ended
		<-d.exited
	})
	require.Eventually(t, func() bool { code, _, _ := d.get("/-/ready"); return code == 200 }, 2*time.Minute, 20*time.Millisecond)
	return d
}

func (d *daemon) get(path string) (int, string, error) {
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}).Get("http://" + d.http + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// ended waits for the process and returns its exit code; -1 for a signal.
func (d *daemon) ended(t *testing.T) int {
	t.Helper()
	select {
	case <-d.exited:
	case <-time.After(2 * time.Minute):
		t.Fatal("the process goes on")
	}
	var exit *exec.ExitError
	if errors.As(d.err, &exit) {
		return exit.ExitCode()
	}
	require.NoError(t, d.err)
	return 0
}

// The page at / of components without a user interface tells of routes that there are.
func TestLandingPages(t *testing.T) {
	for name, args := range map[string]func(http string) []string{
		"store": func(http string) []string { return storeArgs(t, http, proctest.Addr(t)) },
		"all": func(http string) []string {
			return []string{"all", "--http-address=" + http, "--grpc-address=" + proctest.Addr(t), "--data-dir=" + t.TempDir()}
		},
		"compact": func(http string) []string {
			return []string{"compact", "--wait", "--http-address=" + http, "--data-dir=" + t.TempDir(), bucketArg(t)}
		},
		"ingest": func(http string) []string {
			return []string{
				"ingest", "--http-address=" + http, "--grpc-address=" + proctest.Addr(t), "--remote-write.address=", "--ring.bind-address=127.0.0.1:0",
				"--tsdb.path=" + t.TempDir(), `--label=replica="a"`,
			}
		},
	} {
		d := startDaemon(t, args)
		code, page, err := d.get("/")
		require.NoError(t, err)
		require.Equal(t, 200, code)
		require.Contains(t, page, "<h1>firnline "+name+"</h1>")
		links := regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(page, -1)
		require.GreaterOrEqual(t, len(links), 4)
		for _, l := range links {
			path, relative := strings.CutPrefix(l[1], ".")
			require.True(t, relative, l[1])
			code, body, err := d.get(path)
			require.NoError(t, err)
			require.Equal(t, 200, code, "%s of %s: %s", path, name, body)
		}
		code, _, err = d.get("/elsewhere")
		require.NoError(t, err)
		require.Equal(t, 404, code)
	}
}

// post sends what body will have, and tells of the moment when the component reads it.
func (d *daemon) post(path string, body io.Reader, reading func()) (code int, err error) {
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{Got100Continue: reading})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+d.http+path, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Expect", "100-continue")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: time.Hour}}).Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// RELIABILITY K2
func TestSIGTERMUnderLoad(t *testing.T) {
	dir := t.TempDir()
	d := startDaemon(t, func(http string) []string {
		return []string{"all", "--http-address=" + http, "--grpc-address=127.0.0.1:0", "--data-dir=" + dir, "--shutdown-delay=0s"}
	})
	type answer struct {
		code int
		err  error
	}
	reading, answered := make(chan struct{}), make(chan answer, 1)
	body, rest := io.Pipe()
	go func() {
		code, err := d.post("/api/v1/write", body, func() { close(reading) })
		answered <- answer{code, err}
	}()
	select {
	case <-reading:
	case a := <-answered:
		t.Fatalf("answered without its body: %+v", a)
	}
	require.NoError(t, d.Process.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", d.http)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}, 2*time.Minute, 10*time.Millisecond, "nothing new is taken")
	select {
	case <-d.exited:
		t.Fatal("ended with a request running")
	default:
	}
	_, err := rest.Write(snappy.Encode(nil, nil))
	require.NoError(t, err)
	require.NoError(t, rest.Close())
	require.Equal(t, answer{code: http.StatusNoContent}, <-answered, "what runs is finished")
	require.Zero(t, d.ended(t))
	require.Contains(t, d.stderr.String(), "msg=stopped")
}

// RELIABILITY K2
func TestSecondSignalEndsAtOnce(t *testing.T) {
	d := startStore(t, "--shutdown-delay=1h")
	require.NoError(t, d.Process.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool {
		code, body, _ := d.get("/-/ready")
		return code == 503 && strings.Contains(body, "stopping")
	}, 2*time.Minute, 10*time.Millisecond, "not ready first")
	require.NoError(t, d.Process.Signal(syscall.SIGTERM))
	require.Equal(t, -1, d.ended(t), "ended by the signal")
}

// RELIABILITY K1
func TestSIGHUPReloads(t *testing.T) {
	web := write(t, filepath.Join(t.TempDir(), "web.yml"), "{}")
	d := startStore(t, "--http.config="+web, "--web.enable-lifecycle")
	metric := func(want string) func() bool {
		return func() bool {
			_, body, _ := d.get("/metrics")
			return strings.Contains(body, "firnline_config_last_reload_successful "+want+"\n")
		}
	}
	require.True(t, metric("1")())
	write(t, web, "tls_server_confg: {}\n")
	require.NoError(t, d.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, metric("0"), 2*time.Minute, 20*time.Millisecond)

	resp, err := http.Post("http://"+d.http+"/-/reload", "", nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	body, _ := io.ReadAll(resp.Body)
	require.Equal(t, 500, resp.StatusCode)
	require.Contains(t, string(body), "--http.config: "+web+`: line 1: unknown key "tls_server_confg"`)

	write(t, web, "{}\n")
	require.NoError(t, d.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, metric("1"), 2*time.Minute, 20*time.Millisecond)
}

func TestPortsInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	code, _, errs := cli(t, storeArgs(t, taken.Addr().String(), "127.0.0.1:0")...)
	require.Equal(t, exitProblem, code)
	require.Contains(t, errs, "--http-address: "+taken.Addr().String()+" is in use by another process")

	other, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer other.Close()
	dir := filepath.Join(t.TempDir(), "data")
	code, _, errs = cli(t, "all", "--data-dir="+dir, "--http-address=127.0.0.1:0", "--grpc-address="+taken.Addr().String(), "--query.address="+other.Addr().String())
	require.Equal(t, exitProblem, code, errs)
	require.Contains(t, errs, "--grpc-address: "+taken.Addr().String()+" is in use by another process")
	require.Contains(t, errs, "--query.address: "+other.Addr().String()+" is in use by another process")
	require.NoDirExists(t, dir, "nothing was begun")
}

// failing is a part that gives up.
type failing struct{ after chan struct{} }

func (f failing) Run(context.Context) error {
	<-f.after
	return errors.New("gave up")
}

// lasting is a part that notes when it was told to stop.
type lasting struct{ stopped chan struct{} }

func (l lasting) Run(ctx context.Context) error {
	<-ctx.Done()
	close(l.stopped)
	return nil
}

func TestPartThatFailsEndsTheProcess(t *testing.T) {
	c := newStore()
	f := newFlags(c.all())
	c.base.server.HTTP.Address, c.base.server.GRPC.Address = "127.0.0.1:0", "127.0.0.1:0"
	c.base.server.ShutdownDelay = 0
	c.base.memory.Auto = false
	last := lasting{make(chan struct{})}
	c.build = func(context.Context, *process) ([]runner, error) {
		after := make(chan struct{})
		close(after)
		return []runner{last, failing{after}}, nil
	}
	require.EqualError(t, c.run(t.Context(), f, io.Discard), "store: gave up")
	<-last.stopped
}

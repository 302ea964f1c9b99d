package heads

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// envAlone tells a test that it has the process for itself: it would take descriptors from all others.
const envAlone = "FIRNLINE_HEADS_ALONE"

// alone runs a test in a process of its own. It returns false in the one that waits.
func alone(t *testing.T, attr *syscall.SysProcAttr, env ...string) bool {
	if os.Getenv(envAlone) != "" {
		return true
	}
	// Whoever it runs as need not have rights to the path of the binary.
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=20m")
	cmd.Env = append(append(os.Environ(), envAlone+"=1"), env...)
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL) {
		t.Skipf("a process of somebody else's can't be had here: %s", err)
	}
	require.NoError(t, err)
	return false
}

// limitDescriptors lets the process open so many more files. All else is as before says. The limit is on
// the number that a file gets, which is the lowest that is free.
func limitDescriptors(t *testing.T, more uint64, before syscall.Rlimit) {
	var stat syscall.Stat_t
	for before.Cur = 0; ; before.Cur++ {
		if err := syscall.Fstat(int(before.Cur), &stat); errors.Is(err, syscall.EBADF) {
			if more == 0 {
				break
			}
			more--
		}
	}
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before))
}

// TestFewDescriptors: a process that has no descriptors left for a tenant's files, at whatever step, leaves
// them as they are. Other tenants go on, and all is there when there are enough.
//
// RELIABILITY I2
func TestFewDescriptors(t *testing.T) {
	if !alone(t, nil) {
		return
	}
	for _, within := range []bool{false, true} { // true: the TSDB itself runs out of them
		t.Run(fmt.Sprintf("within the TSDB %t", within), func(t *testing.T) { runOut(t, within) })
	}
}

// runOut opens a tenant with more and more descriptors until they are enough.
func runOut(t *testing.T, within bool) {
	r := worn(t)
	r.put(write("other", 1, one("up", 0, 1)))
	want := r.dump()
	r.stop()
	dir := filepath.Join(r.cfg.Dir, "t")
	note := filepath.Join(dir, endNoteFilename)
	require.NoError(t, os.Remove(note), "as after a crash")
	before := contents(t, dir)
	require.NoError(t, os.Mkdir(note, 0o755)) // keeps it from being opened at first
	var normal syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &normal))
	var more atomic.Int64 // descriptors than there are
	more.Store(-1)
	r.p.Fault = func(step string) error {
		if n := more.Load(); within && n >= 0 && step == "open/tsdb" {
			limitDescriptors(t, uint64(n), normal)
		}
		return nil
	}
	r.run()
	require.NoError(t, os.Remove(note))
	r.put(write("other", 1, one("up", 1, 1))) // opens its log's folder
	for n := int64(0); ; n++ {
		more.Store(n)
		if !within {
			limitDescriptors(t, uint64(n), normal)
		}
		r.advance(retryLongest)
		_, err := r.Append(t.Context(), write("t", 1, one("a", float64(9*hour), 1)))
		r.put(write("other", 1, one("up", float64(1000*(n+1)), 1)))
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &normal))
		if err == nil {
			t.Logf("refused %d times", n)
			require.True(t, within || n > 10, "what failed tries have left open is closed at any time, so that there are more")
			break
		}
		require.ErrorContains(t, asRefuse(t, err, refuse.Unavailable), "too many open files", "%d more", n)
		require.ErrorContains(t, err, "ulimit -n")
		if !within { // else it may have been opened, and only what was held could not be removed
			require.True(t, reflect.DeepEqual(before, contents(t, dir)), "%d more", n)
		}
	}
	require.Zero(t, testutil.CollectAndCount(r.metrics.damages))
	got := r.dump()
	for name, samples := range want {
		require.Subset(t, got[name], samples, name)
	}
}

// TestReopenWithFewDescriptors: a tenant that is read only is opened anew with the descriptors that it has, if there
// are not as many beside them: it would stay so for ever.
//
// RELIABILITY I2
func TestReopenWithFewDescriptors(t *testing.T) {
	if !alone(t, nil) {
		return
	}
	r := worn(t)
	h, err := r.acquire(t.Context(), "t")
	require.NoError(t, err)
	need, err := openFiles(h.dir)
	require.NoError(t, err)
	require.Greater(t, need, spareDescriptors+1)
	h.fail(errTorn)
	h.release()
	var normal syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &normal))
	limitDescriptors(t, uint64(need-1), normal)
	r.tend(t.Context())
	_, err = r.Append(t.Context(), write("t", 1, one("a", float64(9*hour), 1)))
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &normal))
	require.NoError(t, err)
}

// TestDescriptorsAreLeft: looking for descriptors takes none from others where there are too few.
//
// RELIABILITY I2
func TestDescriptorsAreLeft(t *testing.T) {
	if !alone(t, nil) {
		return
	}
	dir := t.TempDir()
	var normal syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &normal))
	limitDescriptors(t, spareDescriptors/2, normal)
	stop, others := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				others <- nil
				return
			default:
			}
			f, err := os.Open(dir)
			if err != nil {
				others <- err
				return
			}
			_ = f.Close()
		}
	}()
	for range 1000 {
		require.ErrorIs(t, checkDescriptors(dir), syscall.EMFILE)
	}
	close(stop)
	require.NoError(t, <-others)
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &normal))
	require.NoError(t, checkDescriptors(dir))
}

// TestRights: files and folders that the process has no rights to are an obstacle like others. Root has
// them all, and lets somebody else try.
//
// RELIABILITY I2
func TestRights(t *testing.T) {
	var attr *syscall.SysProcAttr
	var env []string
	if os.Getuid() == 0 && os.Getenv(envAlone) == "" {
		const nobody = 65534
		tmp := t.TempDir()
		require.NoError(t, os.Chown(tmp, nobody, nobody))
		require.NoError(t, os.Chmod(filepath.Dir(tmp), 0o755))
		attr, env = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}, []string{"TMPDIR=" + tmp}
	}
	if !alone(t, attr, env...) {
		return
	}
	if _, err := os.Stat(os.TempDir()); err != nil {
		t.Skipf("somebody else has no folder for files here: %s", err)
	}
	var all []obstacle
	for _, pattern := range []string{"wal/0*", "wal/checkpoint.*/0*", "wbl/0*", "chunks_head/0*", "01*/index", "01*/meta.json"} {
		all = append(all, forbidden(pattern, 0))
	}
	for _, folder := range []string{"wal", "wbl", "chunks_head", "wal/checkpoint.*", "01*", ""} {
		all = append(all, forbidden(folder, 0))
	}
	for _, folder := range []string{"wal", "wbl", ""} { // it may be read, but not written
		all = append(all, forbidden(folder, 0o555))
	}
	meet(t, all)
}

// forbidden takes rights to the first file or folder that fits.
func forbidden(pattern string, mode os.FileMode) obstacle {
	return obstacle{fmt.Sprintf("rights %o to %s", mode, pattern), func(t *testing.T, r *rig) func() {
		path := first(matches(t, r, pattern))[0]
		st, err := os.Stat(path)
		require.NoError(t, err)
		require.NoError(t, os.Chmod(path, mode))
		lift := func() { require.NoError(t, os.Chmod(path, st.Mode())) }
		t.Cleanup(lift)
		return lift
	}, "permission denied", false}
}

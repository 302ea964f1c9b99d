// Package stack starts the real programs that tests and the demo run against,
// on loopback: Prometheus, MinIO, and Firnline's own binary.
package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience is how long a program may take to start, to end or to stand still:
// far more than one does, even where everything else is busy as well.
const patience = 5 * time.Minute

// Process is a running program. Stop it.
type Process struct {
	Name    string
	LogPath string

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu  sync.Mutex
	err error // how it ended
}

// Spec says what to run.
type Spec struct {
	Name    string // also of its log file
	Dir     string // where the log goes
	Path    string // the program
	Args    []string
	Env     []string      // added to ours
	Ready   string        // a URL that answers 2xx when it is ready; empty: at once
	Timeout time.Duration // to become ready; 0: as long as patience lasts
}

// Start runs a program and waits until it is ready.
func Start(ctx context.Context, s Spec) (*Process, error) {
	p, err := Launch(s)
	if err != nil {
		return nil, err
	}
	if s.Timeout == 0 {
		s.Timeout = patience
	}
	if err := p.waitReady(ctx, s.Ready, s.Timeout); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// Launch runs a program and does not wait.
func Launch(s Spec) (*Process, error) {
	if err := os.MkdirAll(s.Dir, 0o750); err != nil {
		return nil, err
	}
	p := &Process{Name: s.Name, LogPath: filepath.Join(s.Dir, s.Name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.LogPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(s.Path, s.Args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), s.Env...)
	// A group of its own: Ctrl-C in the terminal is for whoever started us.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	go func() {
		defer close(p.done)
		err := p.cmd.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.err = err
	}()
	return p, nil
}

func (p *Process) waitReady(ctx context.Context, url string, timeout time.Duration) error {
	if url == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	last := errors.New("no answer yet")
	for {
		select {
		case <-p.done:
			return fmt.Errorf("%s ended while starting: %w\n%s", p.Name, p.Err(), p.Tail(20))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %s: %w\n%s", p.Name, timeout, last, p.Tail(20))
		case <-time.After(50 * time.Millisecond):
		}
		if last = OK(ctx, url); last == nil {
			return nil
		}
	}
}

// OK returns nil when url answers 2xx.
func OK(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}

// Err is how the program ended; nil while it runs and after a clean end.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// PID is the process' number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal, for example SIGSTOP.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Freeze stops the program with SIGSTOP, and returns when it really stands still:
// kill(2) returns before the threads have stopped, and one that is running, or
// a whole program whose CPU is busy, can answer for a while. Signal SIGCONT ends it.
func (p *Process) Freeze() error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("freeze %s: %w", p.Name, err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		running, err := p.running()
		if err != nil {
			return fmt.Errorf("freeze %s: %w", p.Name, err)
		}
		if running == "" {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("freeze %s: after %s there is still %s", p.Name, patience, running)
		}
	}
}

// running tells of a thread that is not stopped; empty: all are.
func (p *Process) running() (string, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", errors.New("it has no threads in /proc")
	}
	for _, f := range files {
		stat, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // that thread has ended
		}
		if err != nil {
			return "", err
		}
		// Behind the name, which stands in brackets: T is stopped, t stopped by a tracer.
		state := bytes.TrimSpace(stat[bytes.LastIndexByte(stat, ')')+1:])
		if !bytes.HasPrefix(state, []byte("T")) {
			return strings.TrimSpace(string(stat)), nil
		}
	}
	return "", nil
}

// Stop asks the program to end and, when it doesn't, makes it.
func (p *Process) Stop() {
	_ = p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.Kill()
	}
}

// Kill ends the program at once, and what it has started.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // its group
	<-p.done
}

// Tail returns the last lines of the log.
func (p *Process) Tail(lines int) string {
	b, err := os.ReadFile(p.LogPath)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// FreeAddr returns a loopback host:port that nobody listens on, and that nobody else
// is given while this process lives: it may stay unused for as long as its program
// takes to start, and between two lives of it. It is below the ports that the kernel
// gives to outgoing connections, one of which could else take it meanwhile.
func FreeAddr() (string, error) {
	const from, to = 15_000, 32_000
	var err error
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", from+rand.IntN(to-from))
		if err = reserve(addr); err == nil {
			return addr, nil
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}

// reserve takes the port of UDP, which none of our programs uses, as the sign to
// other tests that the one of TCP is given out.
func reserve(addr string) error {
	sign, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return errors.Join(err, sign.Close())
	}
	// Until this process ends: a socket that nobody refers to would be closed.
	go func() {
		for err := error(nil); err == nil; _, _, err = sign.ReadFrom(make([]byte, 1)) {
		}
	}()
	return l.Close()
}

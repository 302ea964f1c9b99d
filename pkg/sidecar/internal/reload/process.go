package reload

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// signalProcess sends SIGHUP to the one process whose executable has the name.
func signalProcess(proc, name string) error {
	pids, err := findProcesses(proc, name)
	if err != nil {
		return err
	}
	if len(pids) != 1 {
		return fmt.Errorf("%d processes are called %q (--reloader.process-name), exactly one can be told to reload", len(pids), name)
	}
	p, err := os.FindProcess(pids[0])
	if err != nil {
		return fmt.Errorf("process %d: %w", pids[0], err)
	}
	if err := p.Signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("send SIGHUP to process %d (%s): %w", pids[0], name, err)
	}
	return nil
}

// findProcesses lists the processes below a proc file system whose command
// line begins with an executable of the name.
func findProcesses(proc, name string) ([]int, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(proc, e.Name(), "cmdline"))
		if err != nil {
			continue // it has ended
		}
		exe, _, _ := strings.Cut(string(cmdline), "\x00")
		if filepath.Base(exe) == name {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

package stack

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// MemoryGroup is a cgroup, below our own, whose processes together may take so
// much memory. When they need more the kernel kills one. Close it when they have ended.
type MemoryGroup struct {
	dir string
	v2  bool
}

// NewMemoryGroup makes one of so many bytes. The error says why there can be none here.
func NewMemoryGroup(name string, most int64) (*MemoryGroup, error) {
	own, v2, err := ownMemoryGroup()
	if err != nil {
		return nil, fmt.Errorf("make a memory cgroup: %w", err)
	}
	g := &MemoryGroup{dir: filepath.Join(own, name), v2: v2}
	limit, err := "memory.limit_in_bytes", os.Mkdir(g.dir, 0o755)
	if v2 {
		limit = "memory.max"
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(g.dir, limit), []byte(strconv.FormatInt(most, 10)), 0o600)
	}
	if err == nil {
		err = g.try()
	}
	if err != nil {
		_ = g.Close()
		return nil, fmt.Errorf("make a memory cgroup: %w", err)
	}
	return g, nil
}

// try tells whether a program may be put into the group, and the kernel says whom it kills.
func (g *MemoryGroup) try() error {
	prefix := g.Prefix()
	if out, err := exec.Command(prefix[0], append(prefix[1:], "true")...).CombinedOutput(); err != nil {
		return fmt.Errorf("run a program in it: %w: %s", err, bytes.TrimSpace(out))
	}
	_, err := g.Killed()
	return err
}

// ownMemoryGroup is the folder of the memory cgroup that this process is in.
func ownMemoryGroup() (dir string, v2 bool, err error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", false, err
	}
	const root = "/sys/fs/cgroup"
	for line := range strings.Lines(string(b)) {
		// hierarchy:controllers:path; of version 2 there are no controllers.
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[1] == "memory" {
			return filepath.Join(root, "memory", parts[2]), false, nil
		}
		if parts[1] == "" {
			dir = filepath.Join(root, parts[2])
		}
	}
	if dir == "" {
		return "", true, errors.New("this process is in none")
	}
	// A group with processes may not give controllers to groups below, unless it is the root.
	return dir, true, os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory"), 0o600)
}

// Prefix is the words before a command that is to run in the group.
func (g *MemoryGroup) Prefix() []string {
	return []string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(g.dir, "cgroup.procs")}
}

// Killed tells how many of its processes the kernel has killed for want of memory.
func (g *MemoryGroup) Killed() (int, error) {
	file := "memory.oom_control"
	if g.v2 {
		file = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if n, found := strings.CutPrefix(line, "oom_kill "); found {
			return strconv.Atoi(strings.TrimSpace(n))
		}
	}
	return 0, fmt.Errorf("%s does not tell: %q", file, b)
}

// Close removes the group once its processes are gone.
func (g *MemoryGroup) Close() (err error) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = os.Remove(g.dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	return err
}

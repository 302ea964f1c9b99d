package stack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Firnline is a running component of ours.
type Firnline struct {
	*Process
	Addresses

	spec Spec
}

// Addresses are those a component serves on, each as host:port.
type Addresses struct{ HTTP, GRPC string }

// FreeAddresses returns two that nobody listens on.
func FreeAddresses() (a Addresses, err error) {
	if a.HTTP, err = FreeAddr(); err == nil {
		a.GRPC, err = FreeAddr()
	}
	return a, err
}

// Binary returns the path of the built binary: FIRNLINE_BINARY, or bin/firnline
// in the root of the tree.
func Binary() (string, error) {
	if path := os.Getenv("FIRNLINE_BINARY"); path != "" {
		return path, nil
	}
	path, err := inTree("bin", "firnline")
	if err != nil {
		return "", fmt.Errorf("%w: run make build", err)
	}
	return path, nil
}

// RuleFiles lists the alerts and recording rules of deploy/mixin.
func RuleFiles() ([]string, error) {
	dir, err := inTree("deploy", "mixin")
	if err != nil {
		return nil, err
	}
	alerts, err := filepath.Glob(filepath.Join(dir, "alerts", "*.yaml"))
	if err != nil {
		return nil, err
	}
	return append(alerts, filepath.Join(dir, "rules", "firnline.yaml")), nil
}

// inTree finds a path of the tree that the working folder is in.
func inTree(elements ...string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		path := filepath.Join(append([]string{dir}, elements...)...)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no %s above the working folder", filepath.Join(elements...))
}

// StartFirnline runs a component on the given addresses and waits until it is ready.
func StartFirnline(ctx context.Context, dir, name string, on Addresses, args ...string) (*Firnline, error) {
	f, err := newFirnline(dir, name, on, args)
	if err != nil {
		return nil, err
	}
	if f.Process, err = Start(ctx, f.spec); err != nil {
		return nil, err
	}
	return f, nil
}

// LaunchFirnline runs a component on free ports and does not wait. With a prefix
// the program and its arguments follow those words: a tracer, for example.
func LaunchFirnline(dir, name string, prefix []string, args ...string) (*Firnline, error) {
	on, err := FreeAddresses()
	if err != nil {
		return nil, err
	}
	return LaunchFirnlineOn(dir, name, on, prefix, args...)
}

// LaunchFirnlineOn is LaunchFirnline on addresses that are given.
func LaunchFirnlineOn(dir, name string, on Addresses, prefix []string, args ...string) (*Firnline, error) {
	f, err := newFirnline(dir, name, on, args)
	if err != nil {
		return nil, err
	}
	if len(prefix) > 0 {
		f.spec.Args = append(append(append([]string{}, prefix[1:]...), f.spec.Path), f.spec.Args...)
		f.spec.Path = prefix[0]
	}
	f.Process, err = Launch(f.spec)
	return f, err
}

func newFirnline(dir, name string, on Addresses, args []string) (*Firnline, error) {
	path, err := Binary()
	if err != nil {
		return nil, err
	}
	args = append(args, "--http-address="+on.HTTP)
	if args[0] != "compact" { // which serves nothing over gRPC
		args = append(args, "--grpc-address="+on.GRPC)
	}
	return &Firnline{Addresses: on, spec: Spec{
		Name: name, Dir: dir, Path: path, Ready: "http://" + on.HTTP + "/-/ready", Args: args,
	}}, nil
}

// Restart runs it again, after Stop or Kill.
func (f *Firnline) Restart(ctx context.Context) (err error) {
	f.Process, err = Start(ctx, f.spec)
	return err
}

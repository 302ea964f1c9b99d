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
	HTTP, GRPC string // host:port

	spec Spec
}

// Binary returns the path of the built binary: FIRNLINE_BINARY, or bin/firnline
// in the root of the tree.
func Binary() (string, error) {
	if path := os.Getenv("FIRNLINE_BINARY"); path != "" {
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		path := filepath.Join(dir, "bin", "firnline")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no bin/firnline above the working folder: run make build")
}

// StartFirnline runs a component on the given addresses and waits until it is ready.
func StartFirnline(ctx context.Context, dir, name, httpAddr, grpcAddr string, args ...string) (*Firnline, error) {
	path, err := Binary()
	if err != nil {
		return nil, err
	}
	f := &Firnline{HTTP: httpAddr, GRPC: grpcAddr}
	f.spec = Spec{
		Name: name, Dir: dir, Path: path, Ready: "http://" + httpAddr + "/-/ready",
		Args: append(args, "--http-address="+httpAddr, "--grpc-address="+grpcAddr),
	}
	if f.Process, err = Start(ctx, f.spec); err != nil {
		return nil, err
	}
	return f, nil
}

// Restart runs it again, after Stop or Kill.
func (f *Firnline) Restart(ctx context.Context) (err error) {
	f.Process, err = Start(ctx, f.spec)
	return err
}

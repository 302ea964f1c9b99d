// Command check reads compose files as a container engine does, without one. It is a
// module of its own, since nothing else needs the library.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	for _, path := range os.Args[1:] {
		if err := check(context.Background(), path); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %s\n", path, err)
			os.Exit(1)
		}
	}
}

func check(ctx context.Context, path string) error {
	options, err := cli.NewProjectOptions([]string{path}, cli.WithEnvFiles(), cli.WithDotEnv)
	if err != nil {
		return err
	}
	project, err := options.LoadProject(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "%s: %d services, %d volumes\n", path, len(project.Services), len(project.Volumes))
	return nil
}

package stack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// VmagentConfig describes a vmagent.
type VmagentConfig struct {
	Name    string
	Addr    string
	Targets []string // host:port of what to scrape as job "app", each second
	Args    []string // where to write, and how
}

// Vmagent is a running vmagent: the agent of VictoriaMetrics, which scrapes and sends.
type Vmagent struct {
	*Process
	URL   string
	Queue string // folder of what waits to be sent

	spec Spec
}

// StartVmagent runs a vmagent with its queues below dir.
func StartVmagent(ctx context.Context, dir string, cfg VmagentConfig) (*Vmagent, error) {
	path, err := Peer("vmagent", "vmagent")
	if err != nil {
		return nil, err
	}
	v := &Vmagent{URL: "http://" + cfg.Addr, Queue: filepath.Join(dir, cfg.Name)}
	config := filepath.Join(dir, cfg.Name+".yml")
	scrape := fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: app\n  static_configs:\n  - targets: ['%s']\n", strings.Join(cfg.Targets, "', '"))
	if err := os.WriteFile(config, []byte(scrape), 0o640); err != nil {
		return nil, err
	}
	v.spec = Spec{
		Name: cfg.Name, Dir: dir, Path: path, Ready: v.URL + "/-/ready",
		Args: append([]string{
			"-promscrape.config=" + config,
			"-httpListenAddr=" + cfg.Addr,
			"-remoteWrite.tmpDataPath=" + v.Queue,
		}, cfg.Args...),
	}
	v.Process, err = Start(ctx, v.spec)
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Restart runs it again with the same queues, after Stop or Kill.
func (v *Vmagent) Restart(ctx context.Context) (err error) {
	v.Process, err = Start(ctx, v.spec)
	return err
}

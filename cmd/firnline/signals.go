package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// untilSignal returns a context that ends with the first SIGINT or SIGTERM. The
// second one ends the process at once, as if it weren't caught. stop waits for
// what untilSignal has started.
func untilSignal(parent context.Context) (ctx context.Context, stop func()) {
	signals := make(chan os.Signal, 2) // both, however fast they come
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(parent)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n := 1; ; n++ {
			select {
			case <-done:
				return
			case sig := <-signals:
				cancel()
				if n == 2 {
					endBy(sig)
				}
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		<-ended
		cancel()
	}
}

// endBy ends the process as the signal does when nobody catches it.
func endBy(sig os.Signal) {
	signal.Reset(sig)
	if self, err := os.FindProcess(os.Getpid()); err == nil && self.Signal(sig) == nil {
		time.Sleep(time.Second) // the signal is on its way, unless the process was started to ignore it
	}
	os.Exit(1)
}

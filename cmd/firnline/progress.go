package main

import (
	"fmt"
	"sync"
	"time"
)

// progress shows how far a long piece of work is: below the log on a terminal,
// else by a log line now and then.
type progress struct {
	what  string
	board *board
	log   func(line string)
	began time.Time

	mu struct {
		sync.Mutex
		shown, logged time.Time
	}
}

const (
	progressShown  = 200 * time.Millisecond // between two drawings
	progressLogged = 30 * time.Second       // between two log lines
)

// progress begins to tell of a piece of work; end it.
func (r *toolRun) progress(what string) *progress {
	p := &progress{what: what, board: r.board, began: time.Now(), log: func(line string) { r.log.Info(what, "progress", line) }}
	p.mu.logged = p.began
	return p
}

// blocks tells that so many blocks are done, with so many bytes.
func (p *progress) blocks(done, all int, bytes int64) {
	p.tell(float64(done)/float64(max(all, 1)), fmt.Sprintf("%d of %s", done, counted(all, "block")), bytes)
}

// sizes tells how many bytes are done.
func (p *progress) sizes(done, all int64) {
	p.tell(float64(done)/float64(max(all, 1)), "of "+humanBytes(all), done)
}

// tell shows a share, what of, and the rate.
func (p *progress) tell(share float64, of string, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	took := now.Sub(p.began)
	line := fmt.Sprintf("%3.0f%% %s", 100*share, of)
	if bytes > 0 && took > 0 {
		line += fmt.Sprintf(", %s, %s/s", humanBytes(bytes), humanBytes(int64(float64(bytes)/took.Seconds())))
	}
	if share > 0 && share < 1 {
		line += ", " + roughly(time.Duration(float64(took)*(1-share)/share)) + " left"
	}
	if p.board.terminal && (now.Sub(p.mu.shown) >= progressShown || share >= 1) {
		p.mu.shown = now
		p.board.show([]string{p.what + " " + bar(share, 20) + " " + line})
	}
	if !p.board.terminal && now.Sub(p.mu.logged) >= progressLogged {
		p.mu.logged = now
		p.log(line)
	}
}

// end takes the line off the terminal.
func (p *progress) end() { p.board.show(nil) }

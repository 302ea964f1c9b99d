package ring

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"

	dskit "github.com/grafana/dskit/ring"

	"github.com/firnline/firnline/pkg/block"
)

// tokensVersion is that of the file of tokens.
const tokensVersion = 1

// tokensFile is what a node remembers of the ring over a restart.
type tokensFile struct {
	Version int      `json:"version"`
	Tokens  []uint32 `json:"tokens"`
	// Known is how many nodes the automatic replication factor was last made of.
	// Until the node has found the others again it takes nothing with less.
	Known int `json:"known"`
}

// readTokens returns an empty file if there is none.
func readTokens(path string) (tokensFile, error) {
	var f tokensFile
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, fmt.Errorf("tokens: %w", err)
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return tokensFile{}, fmt.Errorf("tokens %s: %w: %w", path, block.ErrCorrupt, err)
	}
	if f.Version != tokensVersion {
		return tokensFile{}, fmt.Errorf("tokens %s: version %d is not known", path, f.Version)
	}
	return f, nil
}

// delegate is what dskit's lifecycler asks of us. It is called by one goroutine
// at a time, but for remember.
type delegate struct {
	path   string
	tokens int // how many this node wants
	log    *slog.Logger
	forget func(*dskit.Desc) // removes those who are dead for long
	clash  func(addr string) // another node uses our ID

	mu   sync.Mutex
	file tokensFile
}

// OnRingInstanceRegister chooses state and tokens of this node: those it had.
func (d *delegate) OnRingInstanceRegister(l *dskit.BasicLifecycler, ring dskit.Desc, exists bool, id string, own dskit.InstanceDesc) (dskit.InstanceState, dskit.Tokens) {
	d.mu.Lock()
	tokens := d.file.Tokens
	d.mu.Unlock()
	if exists && len(own.Tokens) > 0 {
		tokens = own.Tokens
	}
	state := dskit.JOINING
	if len(tokens) == 0 {
		state = dskit.PENDING
	}
	taken := ring.GetTokens()
	fresh := l.GetTokenGenerator().GenerateTokens(d.tokens-len(tokens), append(slices.Clone(taken), tokens...))
	return state, append(slices.Clone(tokens), fresh...)
}

// OnRingInstanceTokens keeps the tokens for the next start.
func (d *delegate) OnRingInstanceTokens(_ *dskit.BasicLifecycler, tokens dskit.Tokens) {
	d.update(func(f *tokensFile) { f.Tokens = slices.Clone(tokens) })
}

// OnRingInstanceStopping has nothing to do: who stops the ring has left it before.
func (d *delegate) OnRingInstanceStopping(*dskit.BasicLifecycler) {}

// OnRingInstanceHeartbeat is called before each heartbeat.
func (d *delegate) OnRingInstanceHeartbeat(l *dskit.BasicLifecycler, ring *dskit.Desc, own *dskit.InstanceDesc) {
	if own.Addr != l.GetInstanceAddr() {
		d.clash(own.Addr)
	}
	d.forget(ring)
}

// known returns what remember kept.
func (d *delegate) known() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.file.Known
}

// remember keeps how many nodes are known.
func (d *delegate) remember(known int) {
	d.update(func(f *tokensFile) { f.Known = known })
}

// update changes the file, in memory and on disk. A write that fails is said and tried again at the next change.
func (d *delegate) update(change func(*tokensFile)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.file)
	d.file.Version = tokensVersion
	data, err := json.Marshal(d.file)
	if err == nil {
		err = block.WriteFile(d.path, data)
	}
	if err != nil {
		d.log.Error("keep the tokens of the ring for the next start", "err", err)
	}
}

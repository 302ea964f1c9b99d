package storeapi

// loserTree finds the least of k players with log2(k) comparisons after one of
// them has changed. dskit's merges slices of ordered values only, and its users
// compare keys, where we compare label sets in place.
//
// Node 0 holds the winner, nodes 1…k-1 the loser of the game played there; the
// parent of node n is n/2, and player p sits at the leaf k+p.
type loserTree struct {
	nodes []int
	less  func(a, b int) bool
}

// newLoserTree plays all games of k players, k > 0.
func newLoserTree(k int, less func(a, b int) bool) *loserTree {
	t := &loserTree{nodes: make([]int, k), less: less}
	t.nodes[0] = t.play(1)
	return t
}

// play returns the winner of the games below node n.
func (t *loserTree) play(n int) int {
	if n >= len(t.nodes) {
		return n - len(t.nodes)
	}
	a, b := t.play(2*n), t.play(2*n+1)
	if t.less(b, a) {
		a, b = b, a
	}
	t.nodes[n] = b
	return a
}

// winner is the least player.
func (t *loserTree) winner() int { return t.nodes[0] }

// replay finds the new winner after the old one has changed.
func (t *loserTree) replay() {
	w := t.nodes[0]
	for n := (w + len(t.nodes)) / 2; n > 0; n /= 2 {
		if t.less(t.nodes[n], w) {
			w, t.nodes[n] = t.nodes[n], w
		}
	}
	t.nodes[0] = w
}

package output

// ordered is what a heap is made of.
type ordered[T any] interface{ before(T) bool }

// heap has the smallest of its items first. (container/heap calls each
// comparison and swap through an interface, which a merge feels.)
type heap[T ordered[T]] []T

func (h *heap[T]) push(item T) {
	*h = append(*h, item)
	s := *h
	for i := len(s) - 1; i > 0; {
		parent := (i - 1) / 2
		if !s[i].before(s[parent]) {
			return
		}
		s[i], s[parent] = s[parent], s[i]
		i = parent
	}
}

// pop removes the first item and returns it.
func (h *heap[T]) pop() T {
	s := *h
	first, last := s[0], len(s)-1
	s[0] = s[last]
	*h = s[:last]
	h.down(0)
	return first
}

// down moves an item that has become larger to its place.
func (h *heap[T]) down(i int) {
	s := *h
	for {
		child := 2*i + 1
		if child >= len(s) {
			return
		}
		if right := child + 1; right < len(s) && s[right].before(s[child]) {
			child = right
		}
		if !s[child].before(s[i]) {
			return
		}
		s[i], s[child] = s[child], s[i]
		i = child
	}
}

package prove

// spans are times on a grid, as intervals with both ends in them, sorted.
type spans struct{ list [][2]int64 }

// add adds the times from from to to, steps apart, which are after all others.
func (s *spans) add(from, to, step int64) {
	if to < from {
		return
	}
	if n := len(s.list); n > 0 && s.list[n-1][1]+step >= from {
		s.list[n-1][1] = max(to, s.list[n-1][1])
		return
	}
	s.list = append(s.list, [2]int64{from, to})
}

func (s *spans) has(t int64) bool {
	for _, iv := range s.list {
		if iv[0] <= t && t <= iv[1] {
			return true
		}
	}
	return false
}

// first is the earliest time.
func (s *spans) first() (int64, bool) {
	if len(s.list) == 0 {
		return 0, false
	}
	return s.list[0][0], true
}

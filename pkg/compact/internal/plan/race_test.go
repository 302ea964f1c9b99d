//go:build race

package plan_test

// raced: the race detector is on. It makes everything many times as slow and
// large; Make has no goroutine of its own.
const raced = true

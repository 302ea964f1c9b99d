package proctest

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines have to end once nobody needs them any more.
// goleak itself waits for half a second, in which a busy machine may not run them.
const patience = 2 * time.Minute

// Main is a TestMain that fails when goroutines are left over after the tests.
func Main(m *testing.M, opts ...goleak.Option) {
	code := m.Run()
	if code == 0 {
		if err := leaks(opts); err != nil {
			fmt.Fprintln(os.Stderr, "after the tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// NoLeaks fails the test when goroutines are left over, but for those that opts name.
func NoLeaks(t testing.TB, opts ...goleak.Option) {
	t.Helper()
	if err := leaks(opts); err != nil {
		t.Error(err)
	}
}

// leaks waits until no goroutine is left over, and tells of those that stay.
func leaks(opts []goleak.Option) error {
	for end := time.Now().Add(patience); ; {
		err := goleak.Find(opts...)
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

package content

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestName(t *testing.T) {
	require.NoError(t, Name("a.yml", nil))
	two := errors.Join(errors.New("line 1: x"), fmt.Errorf("line 2: %w", io.EOF))
	got := Name("--flag", Name("a.yml", two))
	require.EqualError(t, got, "--flag: a.yml: line 1: x\n--flag: a.yml: line 2: EOF")
	require.ErrorIs(t, got, io.EOF)
	require.EqualError(t, Name("a.yml", fmt.Errorf("%w at the %w", io.ErrClosedPipe, io.EOF)), "a.yml: io: read/write on closed pipe at the EOF")
}

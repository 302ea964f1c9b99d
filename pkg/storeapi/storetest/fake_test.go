package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
)

func TestConformance(t *testing.T) {
	Run(t, func(t *testing.T, in Input) storeapi.Store { return NewFakeOf(t, in) }, RequiresMatchers())
}

func TestFakeBehaviour(t *testing.T) {
	s := &suite{in: dataSet()}
	f := NewFakeOf(t, s.in)
	sel := s.all(equal(t, "__name__", "many"))

	f.Behave(Behaviour{Err: storeapi.ErrUnavailable})
	_, err := f.Series(t.Context(), sel)
	require.ErrorIs(t, err, storeapi.ErrUnavailable)
	_, err = f.Info(t.Context())
	require.ErrorIs(t, err, storeapi.ErrUnavailable)

	broken := errors.New("broken")
	f.Behave(Behaviour{StreamErr: broken, FailAfter: 2, Report: storeapi.Report{Warnings: []string{"w"}}})
	set, err := f.Series(t.Context(), sel)
	require.NoError(t, err)
	require.Len(t, drain(t, set, sel), 2)
	require.ErrorIs(t, set.Err(), broken)
	require.Equal(t, []string{"w"}, set.Report().Warnings)
	require.Equal(t, 1, f.Open())
	set.Close()
	require.Zero(t, f.Open())

	f.Behave(Behaviour{Delay: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = f.Series(ctx, sel)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Len(t, f.Selections(), 3)
}

func TestFakeWithoutSupport(t *testing.T) {
	f := NewFake([]storeapi.Series{
		{Labels: labels.FromStrings("a", "2", "r", "1")}, {Labels: labels.FromStrings("a", "1", "r", "2")},
	}, storeapi.Info{})
	set, err := f.Series(t.Context(), storeapi.Selection{WithoutReplicaLabels: []string{"r"}, Shard: &storeapi.Shard{Index: 1, Total: 2}})
	require.NoError(t, err)
	defer set.Close()
	require.Equal(t, []string{`{a="1", r="2"}`, `{a="2", r="1"}`}, names(drain(t, set, storeapi.Selection{SkipChunks: true})))
}

package endpoint

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

func TestLocalConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T, in storetest.Input) storeapi.Store {
		return (&direct{name: "endpoint here", own: storeapi.Services{Store: storetest.NewFakeOf(t, in)}}).services().Store
	}, storetest.RequiresMatchers())
}

// TestLocal: an endpoint in this process is listed, tells of what it has at the
// moment it is asked, and is named by its errors and warnings.
func TestLocal(t *testing.T) {
	cfg, err := defaults(t)
	require.NoError(t, err)
	fake := storetest.NewFake(nil, infoOf("store"))
	s, err := New(cfg, []Local{{"store", storeapi.Services{Store: fake}}}, quiet(), prometheus.NewRegistry())
	require.NoError(t, err)
	run(t, s)

	p := s.Peers()[0]
	require.NoError(t, p.Down)
	require.Equal(t, "store", p.Name)
	require.Equal(t, storeapi.ServiceSet{Store: true}, p.Info.Services)
	require.Equal(t, `[{cluster="store"}]`, labelsOf(s.Endpoints()[0]))

	fake.Behave(storetest.Behaviour{Report: storeapi.Report{Warnings: []string{"half of it"}}})
	_, r, err := p.Services.Store.LabelNames(t.Context(), storeapi.Selection{})
	require.NoError(t, err)
	require.Equal(t, []string{"endpoint store: half of it"}, r.Warnings)
	set, err := p.Services.Store.Series(t.Context(), storeapi.Selection{})
	require.NoError(t, err)
	require.False(t, set.Next())
	require.Equal(t, []string{"endpoint store: half of it"}, set.Report().Warnings)
	set.Close()
	_, _, err = p.Services.Rules.Rules(t.Context(), storeapi.RulesRequest{}, true)
	require.ErrorIs(t, err, storeapi.ErrUnimplemented)
	require.ErrorContains(t, err, "endpoint store: ")

	fake.Behave(storetest.Behaviour{Err: errors.New("still loading")})
	p = s.Peers()[0] // without a health check between
	require.ErrorIs(t, p.Down, storeapi.ErrUnavailable)
	require.ErrorContains(t, p.Down, "still loading")
	require.True(t, p.Known, "it has told what it holds")
	require.Equal(t, "still loading", s.Endpoints()[0].LastError)
	_, err = p.Services.Store.Series(t.Context(), storeapi.Selection{})
	require.EqualError(t, err, "endpoint store: still loading")

	fake.Behave(storetest.Behaviour{})
	require.NoError(t, s.Peers()[0].Down)
}

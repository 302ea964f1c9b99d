package replicate

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

func TestGuard(t *testing.T) {
	g := guard{maxRequests: 2, maxBytes: 100, maxBackoff: 300 * time.Millisecond}
	now := time.Unix(1000, 0)
	require.Equal(t, goAhead, g.enter(500, now), "one request always goes, however large")
	require.Equal(t, busy, g.enter(1, now))
	require.False(t, g.leave(500, true, now))
	require.Equal(t, goAhead, g.enter(1, now))
	require.Equal(t, goAhead, g.enter(1, now))
	require.Equal(t, busy, g.enter(1, now))

	require.True(t, g.leave(1, false, now), "it has become sick")
	require.False(t, g.leave(1, false, now), "the second failure says nothing new")
	require.Equal(t, sick, g.enter(1, now.Add(minBackoff-1)))
	for _, backoff := range []time.Duration{100, 200, 300, 300} {
		now = now.Add(backoff * time.Millisecond)
		require.Equal(t, goAhead, g.enter(1, now), "a probe")
		require.Equal(t, sick, g.enter(1, now), "one at a time")
		require.False(t, g.leave(1, false, now))
		require.Equal(t, sick, g.enter(1, now))
	}
	now = now.Add(time.Second)
	require.Equal(t, goAhead, g.enter(1, now))
	require.True(t, g.leave(1, true, now), "it is well again")
	require.Equal(t, goAhead, g.enter(1, now))
	require.Equal(t, goAhead, g.enter(1, now))
}

func TestSessionsAreBounded(t *testing.T) {
	var s sessions
	var id batch.Session
	for i := range maxSessions + 10 {
		id[0], id[1], id[2] = byte(i), byte(i>>8), byte(i>>16)
		s.get(id)
	}
	require.LessOrEqual(t, len(s.open), maxSessions)
	x := s.get(id)
	x.set(1<<62, true) // no number that anybody gives
	require.Empty(t, x.pages)
	x.set(5000, true)
	require.True(t, x.knows(5000))
	require.False(t, x.knows(5001))
	require.False(t, x.knows(1))
	x.set(5000, false)
	require.False(t, x.knows(5000))

	now := time.Unix(1000, 0)
	families := []batch.Family{{Name: "a"}, {Name: "b"}}
	x.tell("a", families[:1], now)
	require.True(t, x.told("a", &families[0], now))
	require.False(t, x.told("a", &families[1], now))
	require.False(t, x.told("b", &families[0], now), "what another tenant says is not said by this one")
	require.False(t, x.told("a", &families[0], now.Add(announceAgain)), "now and then again")
}

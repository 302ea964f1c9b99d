package server

import (
	"crypto/sha256"
	"net/http"
	"sync"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/time/rate"
)

// unknownUserHash is compared against when the user is not known, so that the
// time of an answer tells nothing about who is. No password is known for it:
// a match would be refused as well.
const unknownUserHash = "$2a$10$7EqJtq98hPqEX7fNZaFWoOhi5AJ4VbLJ8pVsEZ3aD1UOPMKQnvh5G"

// maxKnownLogins bounds the memory of logins that were right.
const maxKnownLogins = 1000

// guard is what a web configuration asks of a request: headers, rate, user.
type guard struct {
	config func() *webConfig
	next   http.Handler

	mu struct {
		sync.Mutex
		known   map[[sha256.Size]byte]struct{} // logins that were right, by hash
		limiter *rate.Limiter
		of      *webConfig // which limiter belongs to
	}
	bcrypt sync.Mutex // one comparison at a time: each costs some 50 ms of a CPU
}

func newGuard(config func() *webConfig, next http.Handler) *guard {
	g := &guard{config: config, next: next}
	g.mu.known = map[[sha256.Size]byte]struct{}{}
	return g
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := g.config()
	for name, value := range c.headers {
		w.Header().Set(name, value)
	}
	if l := g.limiter(c); l != nil && !l.Allow() {
		http.Error(w, "too many requests (rate_limit of the web configuration)", http.StatusTooManyRequests)
		return
	}
	if len(c.users) > 0 && !g.allowed(c, r) {
		w.Header().Set("WWW-Authenticate", "Basic")
		http.Error(w, http.StatusText(http.StatusUnauthorized), http.StatusUnauthorized)
		return
	}
	g.next.ServeHTTP(w, r)
}

// allowed tells whether the request names a user and the user's password.
// A login that was right is not computed again while its hash stays the same.
func (g *guard) allowed(c *webConfig, r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	if !ok {
		return false
	}
	hash, known := c.users[user]
	if !known {
		hash = unknownUserHash
	}
	key := sha256.Sum256([]byte(user + "\x00" + hash + "\x00" + password))
	g.mu.Lock()
	_, seen := g.mu.known[key]
	g.mu.Unlock()
	if seen {
		return true
	}
	g.bcrypt.Lock()
	err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password))
	g.bcrypt.Unlock()
	if err != nil || !known {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.mu.known) >= maxKnownLogins {
		clear(g.mu.known)
	}
	g.mu.known[key] = struct{}{}
	return true
}

// limiter returns the rate limiter of a configuration, nil for none. A new
// configuration begins with a full bucket.
func (g *guard) limiter(c *webConfig) *rate.Limiter {
	if c.interval <= 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.of != c {
		g.mu.limiter, g.mu.of = rate.NewLimiter(rate.Every(c.interval), c.burst), c
	}
	return g.mu.limiter
}

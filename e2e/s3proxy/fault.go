package s3proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

// Fault is what happens to a request in place of, or beside, being passed on.
// The zero Fault does nothing.
type Fault struct {
	Reached func()          // told that a request is here, before anything else
	Until   <-chan struct{} // the request waits for its end

	Delay  time.Duration // before it is passed on
	Hang   bool          // no answer until the client leaves
	Status int           // answered at once; nothing reaches the store

	CutAfter int64         // the answer's body ends after so many bytes, its connection cut; 0: whole
	FlipAt   int64         // this byte of the answer's body is inverted, counting from 1; 0: none
	Drip     time.Duration // between any two KiB of the answer's body

	LoseAnswer     bool  // the store does it, the client never hears of it
	StoreNothing   bool  // PUT: 200, and nothing is stored
	StoreLess      int64 // PUT: 200, and so many bytes less are stored
	DropConditions bool  // If-Match and If-None-Match never reach the store

	HideKeys  *regexp.Regexp // LIST: keys and common prefixes that match are left out
	DateShift time.Duration  // added to Date and Last-Modified
}

// Match chooses requests. Empty fields match all.
type Match struct {
	Ops   []Op
	Key   *regexp.Regexp
	After int // the first so many that match are spared
	Times int // at most so many are hit; 0: all
}

type rule struct {
	match Match
	fault Fault
	seen  int
}

// Inject adds a rule and returns what takes it away again. Where several rules
// match a request the one added first is applied.
func (p *Proxy) Inject(m Match, f Fault) (remove func()) {
	r := &rule{match: m, fault: f}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.rules = append(p.mu.rules, r)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i := range p.mu.rules {
			if p.mu.rules[i] == r {
				p.mu.rules = append(p.mu.rules[:i:i], p.mu.rules[i+1:]...)
				return
			}
		}
	}
}

func (p *Proxy) faultFor(req Request) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.mu.rules {
		if !r.match.wants(req) {
			continue
		}
		r.seen++
		if n := r.seen - r.match.After; n > 0 && (r.match.Times == 0 || n <= r.match.Times) {
			return r.fault
		}
	}
	return Fault{}
}

func (m *Match) wants(req Request) bool {
	ok := len(m.Ops) == 0
	for _, op := range m.Ops {
		ok = ok || op == req.Op
	}
	return ok && (m.Key == nil || m.Key.MatchString(req.Key))
}

// answer sends the store's answer to the client, damaged as f says.
func (p *Proxy) answer(w http.ResponseWriter, resp *http.Response, f Fault) {
	h := w.Header()
	for k, v := range resp.Header {
		h[k] = v
	}
	if f.DateShift != 0 {
		shiftDate(h, "Date", f.DateShift)
		shiftDate(h, "Last-Modified", f.DateShift)
	}
	var body io.Reader = resp.Body
	if f.HideKeys != nil {
		all, err := io.ReadAll(resp.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		shown := hide(all, f.HideKeys)
		h.Set("Content-Length", strconv.Itoa(len(shown)))
		body = bytes.NewReader(shown)
	} else if resp.ContentLength >= 0 {
		h.Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
	w.WriteHeader(resp.StatusCode)
	copyDamaged(w, body, f)
}

// copyDamaged copies a body, and aborts the connection where it is to be cut.
func copyDamaged(w http.ResponseWriter, body io.Reader, f Fault) {
	if f.CutAfter == 0 && f.FlipAt == 0 && f.Drip == 0 {
		_, _ = io.Copy(w, body)
		return
	}
	buf, off := make([]byte, 1024), int64(0)
	for {
		n, err := io.ReadFull(body, buf)
		b := buf[:n]
		if i := f.FlipAt - 1 - off; i >= 0 && i < int64(n) {
			b[i] ^= 0xff
		}
		if f.CutAfter > 0 && off+int64(n) >= f.CutAfter {
			_, _ = w.Write(b[:f.CutAfter-off])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		if _, werr := w.Write(b); werr != nil || err != nil {
			return
		}
		off += int64(n)
		if f.Drip > 0 {
			_ = http.NewResponseController(w).Flush()
			time.Sleep(f.Drip)
		}
	}
}

func shiftDate(h http.Header, key string, by time.Duration) {
	if t, err := http.ParseTime(h.Get(key)); err == nil {
		h.Set(key, t.Add(by).UTC().Format(http.TimeFormat))
	}
}

var listEntry = regexp.MustCompile(`(?s)<Contents>.*?</Contents>|<CommonPrefixes>.*?</CommonPrefixes>`)
var entryName = regexp.MustCompile(`<(?:Key|Prefix)>(.*?)</`)

func hide(list []byte, keys *regexp.Regexp) []byte {
	return listEntry.ReplaceAllFunc(list, func(e []byte) []byte {
		if m := entryName.FindSubmatch(e); m != nil && keys.Match(m[1]) {
			return nil
		}
		return e
	})
}

// putInstead does a PUT in place of the client, since a changed body or header
// would break the client's signature.
func (p *Proxy) putInstead(w http.ResponseWriter, r *http.Request, f Fault) {
	body, err := readBody(r)
	if err != nil {
		writeError(w, http.StatusBadRequest)
		return
	}
	if f.StoreNothing {
		w.Header().Set("ETag", `"00000000000000000000000000000000"`)
		w.WriteHeader(http.StatusOK)
		return
	}
	body = body[:max(0, int64(len(body))-f.StoreLess)]
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	info, err := p.plain.PutObject(r.Context(), bucket, key, bytes.NewReader(body), int64(len(body)), minio.PutObjectOptions{DisableMultipart: true})
	if err != nil {
		writeError(w, http.StatusInternalServerError)
		return
	}
	w.Header().Set("ETag", `"`+info.ETag+`"`)
	w.WriteHeader(http.StatusOK)
}

// readBody reads a PUT's object, which clients without TLS send in signed pieces:
// "<hex size>;chunk-signature=…\r\n<bytes>\r\n", ended by one of size 0.
func readBody(r *http.Request) ([]byte, error) {
	if !strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		return io.ReadAll(r.Body)
	}
	var out bytes.Buffer
	br := bufio.NewReader(r.Body)
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return nil, fmt.Errorf("piece header: %w", err)
		}
		hexSize, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		size, err := strconv.ParseInt(hexSize, 16, 64)
		if err != nil {
			return nil, fmt.Errorf("piece size: %w", err)
		}
		if size == 0 {
			_, err := io.Copy(io.Discard, br) // trailers
			return out.Bytes(), err
		}
		if _, err := io.CopyN(&out, br, size); err != nil {
			return nil, fmt.Errorf("piece: %w", err)
		}
		if _, err := br.Discard(2); err != nil {
			return nil, fmt.Errorf("piece end: %w", err)
		}
	}
}

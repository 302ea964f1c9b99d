package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/proctest"
)

// Where the commands of the docs find a running Firnline.
const (
	docServer = "localhost:10902"
	docGRPC   = "localhost:10901"
)

// ulidPattern knows the names of blocks, which are others in each run.
var ulidPattern = regexp.MustCompile(`\b01[0-9A-HJKMNP-TV-Z]{24}\b`)

// session runs the commands of a page one after the other.
type session struct {
	*testing.T
	server  string // where a Firnline of this page listens; empty: none was needed yet
	grpc    string
	docIDs  []string // the page's ULIDs, in order of appearance
	realIDs []string // and those of this run
}

// TestDocs: every command in a fence of console, on any page, prints what the page
// says, but for the names of blocks and what depends on the moment. -update writes
// the pages. Commands alone, in fences of sh, are run by e2e:TestPages.
func TestDocs(t *testing.T) {
	docs, err := filepath.Abs("../../docs")
	require.NoError(t, err)
	n := 0
	require.NoError(t, filepath.WalkDir(docs, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		if strings.Contains(string(text), "```console\n") {
			n++
			page, err := filepath.Rel(docs, path)
			require.NoError(t, err)
			t.Run(page, func(t *testing.T) { playPage(t, path, string(text)) })
		}
		return nil
	}))
	require.Positive(t, n)
}

// playPage runs the commands of a page in a folder made for it.
func playPage(t *testing.T, path, text string) {
	t.Helper()
	docWorld(t)
	s := &session{T: t}
	fence := regexp.MustCompile("(?s)```console\n(.*?)```")
	got := fence.ReplaceAllStringFunc(text, func(block string) string {
		return "```console\n" + s.play(fence.FindStringSubmatch(block)[1]) + "```"
	})
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
}

// play runs the commands of a block and returns it as it would be now.
func (s *session) play(block string) string {
	s.Helper()
	var out strings.Builder
	for _, part := range strings.Split("\n"+strings.TrimSuffix(block, "\n"), "\n$ ")[1:] {
		command, said, _ := strings.Cut(part, "\n")
		for _, id := range ulidPattern.FindAllString(command+said, -1) {
			s.docIDs = remember(s.docIDs, id)
		}
		real := s.run(command)
		for _, id := range ulidPattern.FindAllString(real, -1) {
			s.realIDs = remember(s.realIDs, id)
		}
		if !*update && strings.Contains(command, docServer) {
			for end := time.Now().Add(5 * time.Minute); !reflect.DeepEqual(shape(said), shape(real)) && time.Now().Before(end); {
				time.Sleep(100 * time.Millisecond) // what was just written or started may not show at once
				real = s.run(command)
			}
			require.Equal(s, shape(said), shape(real), "%s\nsaid\n%s\nis\n%s", command, said, real)
		} else if !*update {
			require.Equal(s, tokens(said, s.docIDs), tokens(strings.TrimSuffix(real, "\n"), s.realIDs), "%s\nif this is meant, run go test ./cmd/firnline -update", command)
		}
		fmt.Fprintf(&out, "$ %s\n%s", s.written(command), real)
	}
	return out.String()
}

func remember(list []string, id string) []string {
	for _, have := range list {
		if have == id {
			return list
		}
	}
	return append(list, id)
}

// tokens replaces ULIDs by their order of appearance.
func tokens(text string, ids []string) string {
	for i, id := range ids {
		text = strings.ReplaceAll(text, id, fmt.Sprintf("ULID%022d", i))
	}
	return text
}

// run runs a command of the page on the blocks of this run.
func (s *session) run(command string) string {
	s.Helper()
	line := s.written(command)
	if strings.Contains(command, docServer) {
		if s.server == "" {
			s.server, s.grpc = docAll(s.T)
		}
		line = strings.ReplaceAll(line, docServer, s.server)
	}
	var both bytes.Buffer
	if program, _, _ := strings.Cut(line, " "); program == "curl" || program == "awk" {
		if _, err := exec.LookPath(program); err != nil {
			s.Skipf("the page wants %s, which is not installed here", program)
		}
		out, err := exec.CommandContext(s.Context(), "sh", "-c", line).CombinedOutput()
		require.NoError(s, err, "%s\n%s", command, out)
		both.Write(out)
	} else {
		args := words(line)
		require.Equal(s, "firnline", args[0])
		require.Equal(s, exitOK, execute(args[1:], &both, &both), "%s\n%s", command, &both)
	}
	out := both.String()
	if s.server != "" {
		out = strings.NewReplacer(s.server, docServer, s.grpc, docGRPC).Replace(out)
	}
	if out != "" && !strings.HasSuffix(out, "\n") {
		out += "\n"
	}
	return out
}

// shape is what an answer is made of, whatever the moment: of JSON the names and kinds
// of its parts, of a list those of its first; of other text only that there is some.
func shape(text string) any {
	var of func(v any) any
	of = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			out := map[string]any{}
			for name, part := range v {
				out[name] = of(part)
			}
			return out
		case []any:
			if len(v) == 0 {
				return "none"
			}
			return []any{of(v[0])}
		}
		return fmt.Sprintf("%T", v)
	}
	var v any
	if json.Unmarshal([]byte(text), &v) != nil {
		return text != ""
	}
	return of(v)
}

// written is a command with a block of this run in place of the page's.
func (s *session) written(command string) string {
	return ulidPattern.ReplaceAllStringFunc(command, func(id string) string {
		for i, have := range s.docIDs {
			if have == id && i < len(s.realIDs) {
				return s.realIDs[i]
			}
		}
		require.NotEmpty(s, s.realIDs)
		return s.realIDs[0]
	})
}

// words splits a command as a shell does, with single quotes alone.
func words(command string) []string {
	var out []string
	word, quoted := "", false
	for _, r := range command + " " {
		switch {
		case r == '\'':
			quoted = !quoted
		case r == ' ' && !quoted:
			out, word = append(out, word), ""
		default:
			word += string(r)
		}
	}
	return out
}

// docWorld makes the folder that the page speaks of, and goes there.
func docWorld(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, dir := range []string{"bucket", "second", "prometheus", "dashboards"} {
		require.NoError(t, os.Mkdir(dir, 0o755))
	}
	write(t, "bucket.yml", "type: FILESYSTEM\nconfig: {directory: bucket}\n")
	write(t, "second.yml", "type: FILESYSTEM\nconfig: {directory: second}\n")
	write(t, "rules.yml", "groups:\n- name: example\n  rules:\n  - {record: 'job:requests:rate5m', expr: 'sum by (job) (rate(requests_total[5m]))'}\n  - {alert: Down, expr: up == 0}\n")
	write(t, "dashboards/requests.json", `{"panels": [{"targets": [{"expr": "rate(requests_total{code=~\"$code\"}[$__rate_interval])"}]}]}`)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var text strings.Builder
	for i := range 4 * 120 {
		at := start.Add(time.Duration(i) * 30 * time.Second).Unix()
		fmt.Fprintf(&text, "up{job=\"web\"} 1 %d\n", at)
		fmt.Fprintf(&text, "go_goroutines{job=\"web\"} %d %d\n", 40+i*7919%17, at)
		for _, code := range []string{"200", "404", "500"} {
			fmt.Fprintf(&text, "requests_total{job=\"web\",code=%q} %d %d\n", code, i*31, at)
		}
	}
	write(t, "metrics.om", text.String()+"# EOF\n")
	from := start.UnixMilli()
	up := blocktest.Series{Labels: labels.FromStrings("__name__", "up", "job", "db"), Samples: blocktest.Floats(from, from+2*testHour, 30_000, func(int64) float64 { return 1 })}
	blocktest.Write(t, "prometheus", []blocktest.Series{up}, labels.EmptyLabels(), blocktest.Options{MinTime: from, MaxTime: from + 2*testHour})
	blocktest.Write(t, "cortex/team-a", []blocktest.Series{up}, labels.FromStrings("__org_id__", "team-a"), blocktest.Options{MinTime: from, MaxTime: from + 2*testHour})
	write(t, "cortex/team-a/bucket-index.json.gz", "of another program")
}

// docAll runs firnline all and returns its addresses.
func docAll(t *testing.T) (addr, grpc string) {
	t.Helper()
	addr, grpc = proctest.Addr(t), proctest.Addr(t)
	cmd := exec.Command(os.Args[0], "all", "--data-dir="+filepath.Join(t.TempDir(), "data"), "--http-address="+addr, "--grpc-address="+grpc, "--self-scrape.interval=1s",
		"--web.enable-admin-api", "--web.enable-lifecycle")
	cmd.Env = append(os.Environ(), asFirnline+"=1")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	says := func(path, what string) func() bool {
		return func() bool {
			req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+addr+path, nil)
			require.NoError(t, err)
			resp, err := client.Do(req)
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			answer, err := io.ReadAll(resp.Body)
			return err == nil && resp.StatusCode == http.StatusOK && strings.Contains(string(answer), what)
		}
	}
	require.Eventually(t, says("/-/ready", ""), 5*time.Minute, 100*time.Millisecond)
	require.Eventually(t, func() bool { // there is something to answer from, also for who asks in whole seconds
		return says(fmt.Sprintf("/api/v1/query?query=up&time=%d", time.Now().Unix()), `"job":"firnline"`)()
	}, 5*time.Minute, 100*time.Millisecond)
	return addr, grpc
}

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/stack"
	"github.com/firnline/firnline/pkg/block/blocktest"
)

// How commands stand on our pages, so that a test runs each of them:
//
//	```sh        commands alone, run here and, for the page that it is of, by TestGettingStarted
//	```console   commands and what they print, run and compared by cmd/firnline:TestDocs
//	<!-- not run: why --> in the line above a fence: nothing here can run it

// fence is a block of code on a page.
type fence struct {
	language string
	lines    []string
	excused  bool // by a comment above it
}

var (
	excuse = regexp.MustCompile(`^<!-- not run: .+ -->$`)

	// commandLike is a line that a reader would type, in a place where no test looks for it.
	commandLike = regexp.MustCompile(`^(    )?(\$ .*|(firnline|thanos) (all|sidecar|store|query|ingest|compact|tools) .*|curl .*|(make|helm|kubectl|docker|promtool|terraform) [a-z]+( .*)?|go (build|install|run|test) .*)$`)
)

// pages are all that people read: those in the root, below docs and below deploy.
func pages(t *testing.T) (out []string) {
	t.Helper()
	out, err := filepath.Glob("../*.md")
	require.NoError(t, err)
	for _, dir := range []string{"../docs", "../deploy"} {
		require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if strings.HasSuffix(path, ".md") {
				out = append(out, path)
			}
			return err
		}))
	}
	require.Greater(t, len(out), 30)
	return out
}

// fencesOf returns the fences of a page, and the lines outside of them.
func fencesOf(t *testing.T, page string) (fences []fence, outside []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	inside, above := false, ""
	for _, line := range strings.Split(string(text), "\n") {
		switch language, mark := strings.CutPrefix(line, "```"); {
		case mark && inside:
			inside = false
		case mark:
			inside = true
			fences = append(fences, fence{language: language, excused: excuse.MatchString(above)})
		case inside:
			last := &fences[len(fences)-1]
			last.lines = append(last.lines, line)
		default:
			outside = append(outside, line)
		}
		above = line
	}
	require.False(t, inside, "%s: a fence is open at the end", page)
	return fences, outside
}

// commandsOf returns the commands of a page that are to be run; those over several lines as one.
func commandsOf(t *testing.T, page string) (out []string) {
	t.Helper()
	fences, _ := fencesOf(t, page)
	for _, f := range fences {
		if f.language != "sh" || f.excused {
			continue
		}
		open := false
		for _, line := range f.lines {
			if open {
				out[len(out)-1] += "\n" + line
			} else {
				out = append(out, line)
			}
			open = strings.Count(out[len(out)-1], "'")%2 == 1
		}
	}
	return out
}

// TestCommandsHaveTheirPlace: a command stands only where a test runs it.
func TestCommandsHaveTheirPlace(t *testing.T) {
	n := 0
	for _, page := range pages(t) {
		fences, elsewhere := fencesOf(t, page)
		for _, f := range fences {
			switch {
			case f.language == "sh" || f.language == "console":
				n++
				require.NotEmpty(t, f.lines, page)
			case !f.excused:
				elsewhere = append(elsewhere, f.lines...)
			}
		}
		for _, line := range elsewhere {
			require.False(t, commandLike.MatchString(line), "%s: no test runs %q: put it into a fence of sh or console", page, line)
		}
	}
	require.Greater(t, n, 50)
}

// TestFlagsAndMetricsOfPages: every flag and metric that a page names is in the reference.
func TestFlagsAndMetricsOfPages(t *testing.T) {
	reference := ""
	for _, name := range []string{"flags", "metrics"} {
		text, err := os.ReadFile("../docs/reference/" + name + ".md")
		require.NoError(t, err)
		reference += string(text)
	}
	others := regexp.MustCompile(`^(storage\.tsdb\.|agent$|objstore-parquet|query$|query-frontend|receive\.otlp-|remote-write\.server-|query\.enforce-tenancy|help|version$)`) // of Prometheus, of Thanos, of cobra
	flags := regexp.MustCompile("`(?:firnline [a-z ]+)?--(?:no-)?([a-z][a-z0-9_.*-]+)")
	metrics := regexp.MustCompile(`\bfirnline_[a-z]+_[a-z0-9_]+[a-z0-9]\b`)
	histogram := regexp.MustCompile(`_(bucket|sum|count)$`)
	n := 0
	for _, page := range pages(t) {
		if strings.Contains(page, "/reference/") || strings.Contains(page, "/formats/") {
			continue
		}
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range flags.FindAllStringSubmatch(string(text), -1) {
			n++
			if name, family := strings.CutSuffix(m[1], "*"); !others.MatchString(m[1]) && !strings.Contains(name, "*") {
				known := regexp.MustCompile(`--(\[no-\])?` + regexp.QuoteMeta(name) + map[bool]string{false: `[^a-z0-9.-]`}[family])
				assert.True(t, known.MatchString(reference), "%s names --%s", page, m[1])
			}
		}
		for _, name := range metrics.FindAllString(string(text), -1) {
			n++
			if base := histogram.ReplaceAllString(name, ""); name != "firnline_prove_counter" && !strings.Contains(reference, "`"+name+"`") {
				assert.True(t, strings.Contains(reference, "`"+base), "%s names %s", page, name)
			}
		}
	}
	require.Greater(t, n, 500)
}

// TestLinksOfPages: every link between our pages leads somewhere.
func TestLinksOfPages(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	notInAnchors := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	anchors := map[string]map[string]bool{}
	for _, page := range pages(t) {
		_, lines := fencesOf(t, page)
		of := map[string]bool{}
		for _, line := range lines {
			if hashes, title, ok := strings.Cut(line, " "); ok && strings.Trim(hashes, "#") == "" && hashes != "" {
				of[strings.ReplaceAll(notInAnchors.ReplaceAllString(strings.ToLower(title), ""), " ", "-")] = true
			}
			for _, a := range regexp.MustCompile(`<a id="([^"]+)">`).FindAllStringSubmatch(line, -1) {
				of[a[1]] = true
			}
		}
		anchors[filepath.Clean(page)] = of
	}
	n := 0
	for _, page := range pages(t) {
		_, lines := fencesOf(t, page)
		for _, m := range link.FindAllStringSubmatch(strings.Join(lines, "\n"), -1) {
			file, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(m[1], "://") {
				continue
			}
			n++
			to := filepath.Clean(page)
			if file != "" {
				to = filepath.Join(filepath.Dir(page), file)
				_, err := os.Stat(to)
				assert.NoError(t, err, "%s links to %s", page, m[1])
			}
			if known, ours := anchors[to]; ours && anchor != "" {
				assert.True(t, known[anchor], "%s links to %s: no such heading", page, m[1])
			}
		}
	}
	require.Greater(t, n, 200)
	index, err := os.ReadFile("../docs/README.md")
	require.NoError(t, err)
	for page := range anchors {
		if name, ours := strings.CutPrefix(page, "../docs/"); ours && name != "README.md" {
			assert.Contains(t, string(index), "("+name+")", "the index has every page")
		}
	}
}

// pageWorld is what the commands of a page find: a Prometheus, a bucket with a block
// of two months ago, and everything in one process on it.
type pageWorld struct {
	*rig
	prom   *stack.Prometheus
	bucket string // path of its configuration
	all    *stack.Firnline
}

func newPageWorld(t *testing.T) *pageWorld {
	t.Helper()
	w := &pageWorld{rig: bareRig(t)}
	w.prom, _ = w.prometheus("prometheus", map[string]string{"cluster": "eu1", "replica": "a"})
	dir := filepath.Join(w.dir, "bucket")
	require.NoError(t, os.Mkdir(dir, 0o755))
	start := time.Now().Add(-60 * 24 * time.Hour).Truncate(2 * time.Hour).UnixMilli()
	blocktest.Write(t, dir, []blocktest.Series{{
		Labels:  labels.FromStrings("__name__", "old", "namespace", "dev"),
		Samples: blocktest.Floats(start, start+7_200_000, 15_000, func(int64) float64 { return 1 }),
	}}, labels.FromStrings("cluster", "eu1"), blocktest.Options{MinTime: start, MaxTime: start + 7_200_000})
	w.bucket = filepath.Join(w.dir, "bucket.yml")
	w.write(w.bucket, "type: FILESYSTEM\nconfig: {directory: "+dir+"}\n")
	w.all = w.start("all", "--data-dir="+filepath.Join(w.dir, "all"), "--objstore.config-file="+w.bucket, "--prometheus.url="+w.prom.URL)
	return w
}

// reader goes through a page, command by command.
type reader struct {
	*pageWorld
	http map[string]string // where what a page calls so listens
	grpc map[string]string
}

// TestPages runs every command of every page that is in a fence of sh.
func TestPages(t *testing.T) {
	t.Parallel()
	w := newPageWorld(t)
	first := commandsOf(t, "../docs/getting-started.md") // run by TestGettingStarted
	for _, page := range pages(t) {
		commands := commandsOf(t, page)
		if len(commands) == 0 || page == "../docs/getting-started.md" {
			continue
		}
		t.Run(strings.TrimPrefix(page, "../"), func(t *testing.T) {
			if page == "../README.md" {
				require.Subset(t, first, commands)
				return
			}
			world := *w
			world.rig = &rig{t: t, dir: t.TempDir()}
			r := &reader{pageWorld: &world, http: map[string]string{}, grpc: map[string]string{}}
			r.writeFiles(page)
			for _, c := range commands {
				r.run(c)
			}
		})
	}
}

var (
	endpointFlag = regexp.MustCompile(`--endpoint=(?:dns\+)?(\S+)`)
	addressFlag  = regexp.MustCompile(` --(http|grpc)-address=(\S+)`)
	joinFlag     = regexp.MustCompile(`--ring\.join=\S+`)
	shownFile    = regexp.MustCompile(`^# ([a-z]+\.ya?ml)\b`)
	serving      = regexp.MustCompile(`^firnline (all|sidecar|store|query|ingest|compact) `)
)

// writeFiles makes the files that a page shows: fences of YAML that begin with a name.
func (r *reader) writeFiles(page string) {
	r.t.Helper()
	fences, _ := fencesOf(r.t, page)
	for _, f := range fences {
		if m := shownFile.FindStringSubmatch(f.lines[0]); f.language == "yaml" && m != nil {
			r.write(filepath.Join(r.dir, m[1]), strings.Join(f.lines, "\n"))
		}
	}
}

// run runs a command: a component until the end of the page, all else until it has ended.
func (r *reader) run(command string) {
	r.t.Helper()
	r.t.Log(command)
	here := strings.NewReplacer("=/prometheus", "="+r.prom.DataDir, "/var/lib/prometheus", r.prom.DataDir,
		"/var/lib/firnline", filepath.Join(r.dir, "var"), "/tmp/", r.dir+"/", "bucket.yml", r.bucket, "=/data ", "="+filepath.Join(r.dir, "ring")+" ",
		"http://localhost:9090", r.prom.URL, "http://prometheus:9090", r.prom.URL, "$(HOSTNAME)", "a").Replace(command)
	if serving.MatchString(here) && !strings.Contains(here, " --help") {
		r.serve(strings.TrimSuffix(here, " &"))
		return
	}
	for _, as := range []string{"127.0.0.1", "localhost"} {
		for _, port := range []string{"10902", "10912"} {
			at, known := r.http[port]
			if !known {
				at = r.all.HTTP
			}
			here = strings.ReplaceAll(here, as+":"+port, at)
		}
	}
	if strings.Contains(here, "delete cancel ID") {
		here = strings.Replace(here, "cancel ID", "cancel "+r.newestDelete(), 1)
	}
	binary, err := stack.Binary()
	require.NoError(r.t, err)
	if program, _, _ := strings.Cut(here, " "); program != "firnline" {
		if _, err := exec.LookPath(program); err != nil {
			r.t.Skipf("the page wants %s, which is not installed here", program)
		}
	} else {
		here = binary + strings.TrimPrefix(here, "firnline")
	}
	eventually(r.t, 3*time.Minute, func() error { // what was just written or started may not show at once
		cmd := exec.CommandContext(r.t.Context(), "sh", "-c", here)
		cmd.Dir = r.dir
		out, err := cmd.CombinedOutput()
		if err == nil && strings.HasPrefix(command, "curl ") && (len(out) == 0 && !strings.Contains(command, " > ") || strings.Contains(string(out), `"status":"error"`)) {
			err = errors.New("no answer")
		}
		if err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, out)
		}
		return nil
	})
}

// serve starts a component on addresses of its own.
func (r *reader) serve(command string) {
	r.t.Helper()
	at := map[string]string{"http": "10902", "grpc": "10901"}
	for _, m := range addressFlag.FindAllStringSubmatch(command, -1) {
		_, at[m[1]], _ = strings.Cut(m[2], ":")
	}
	command = addressFlag.ReplaceAllString(command, "")
	command = endpointFlag.ReplaceAllStringFunc(command, func(flag string) string {
		if on, known := r.grpc[endpointFlag.FindStringSubmatch(flag)[1]]; known {
			return "--endpoint=" + on
		}
		return "--endpoint=" + r.all.GRPC
	})
	gossip, err := stack.FreeAddr()
	require.NoError(r.t, err)
	args := words(r.t, strings.TrimPrefix(joinFlag.ReplaceAllString(command, "--ring.join="+gossip), "firnline "))
	args = append(args, map[string][]string{
		"ingest": {"--ring.bind-address=" + gossip, "--remote-write.address=", "--ring.join-wait=1s"},
		"store":  {"--sync-block-duration=1s"},
	}[args[0]]...)
	secured := false // by a web configuration: it can't be asked whether it is ready, so the next command waits
	for i, a := range args {
		flag, value, _ := strings.Cut(a, "=")
		secured = secured || flag == "--http.config"
		if _, err := os.Stat(filepath.Join(r.dir, value)); err == nil && value != "" {
			args[i] = flag + "=" + filepath.Join(r.dir, value)
		}
	}
	start := r.start
	if secured {
		start = func(args ...string) *stack.Firnline { return r.launch(nil, args...) }
	}
	f := start(args...)
	r.http[at["http"]] = f.HTTP
	for _, host := range []string{"127.0.0.1", "localhost", args[0]} {
		r.grpc[host+":"+at["grpc"]] = f.GRPC
	}
}

// newestDelete is the ID of a request to delete series.
func (r *reader) newestDelete() string {
	r.t.Helper()
	_, body := get(r.t, "http://"+r.all.HTTP+"/api/v1/delete_requests")
	ids := regexp.MustCompile(`01[0-9A-HJKMNP-TV-Z]{24}`).FindAllString(body, -1)
	require.NotEmpty(r.t, ids, body)
	return ids[len(ids)-1]
}

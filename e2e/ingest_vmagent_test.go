package e2e

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/firnline/firnline/e2e/stack"
)

// agentRig is an ingester behind TLS and a password, and a vmagent that sends it all that
// it scrapes: in its own protocol as tenant one, in Prometheus' as tenant two. A Prometheus
// beside it is sent the same.
type agentRig struct {
	*rig
	on      stack.Addresses
	args    []string // of the ingester
	in      *stack.Firnline
	prom    *stack.Prometheus
	vmagent *stack.Vmagent
}

// agentTenants are in the order of the URLs that vmagent sends to.
var agentTenants = []string{"one", "two"}

func newAgentRig(t *testing.T, targets ...string) *agentRig {
	t.Helper()
	r := &agentRig{rig: bareRig(t)}
	var err error
	r.on, err = stack.FreeAddresses()
	require.NoError(t, err)
	r.args = r.ingestArgs("a", "--http.config="+r.secured("vmagent", "secret"), "--tsdb.out-of-order.time-window=1h")
	r.ingests()
	r.prom, _ = r.prometheusOf(stack.PrometheusConfig{
		Name: "prometheus", BlockDuration: 2 * time.Hour, OutOfOrder: time.Hour, Args: []string{"--web.enable-remote-write-receiver"},
	})
	relabel := filepath.Join(r.dir, "relabel.yml")
	r.write(relabel, "- {source_labels: [method], target_label: verb}\n- {regex: method, action: labeldrop}\n"+
		"- {source_labels: [__name__], regex: scrape_.*, action: drop}\n")
	addr, err := stack.FreeAddr()
	require.NoError(t, err)
	to := "https://" + r.on.HTTP
	r.vmagent, err = stack.StartVmagent(t.Context(), r.dir, stack.VmagentConfig{Name: "vmagent", Addr: addr, Targets: targets, Args: []string{
		"-remoteWrite.url=" + to + "/api/v1/write", "-remoteWrite.headers=THANOS-TENANT: one",
		"-remoteWrite.url=" + to + "/api/v1/push", "-remoteWrite.headers=X-Scope-OrgID: two",
		"-remoteWrite.url=" + r.prom.URL + "/api/v1/write", "-remoteWrite.headers=Sent-By: vmagent",
		"-remoteWrite.forcePromProto=false,true,false",
		"-remoteWrite.basicAuth.username=vmagent", "-remoteWrite.basicAuth.passwordFile=" + filepath.Join(r.dir, "password"),
		"-remoteWrite.tlsCAFile=" + filepath.Join(r.dir, "cert.pem"),
		"-remoteWrite.relabelConfig=" + relabel, "-remoteWrite.label=cluster=eu1", "-remoteWrite.retryMaxInterval=3s",
		"-promscrape.suppressScrapeErrors",
	}})
	require.NoError(t, err)
	t.Cleanup(func() {
		r.vmagent.Kill()
		if t.Failed() {
			t.Logf("end of vmagent:\n%s", r.vmagent.Tail(30))
		}
	})
	return r
}

// secured writes a web configuration, a certificate for 127.0.0.1 and a password, and what clients need of it.
func (r *agentRig) secured(user, password string) string {
	r.t.Helper()
	s := httptest.NewTLSServer(nil) // for its certificate
	defer s.Close()
	cert := s.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(r.t, err)
	r.write(filepath.Join(r.dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})))
	r.write(filepath.Join(r.dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	require.NoError(r.t, err)
	r.write(filepath.Join(r.dir, "password"), password)
	path := filepath.Join(r.dir, "web.yml")
	r.write(path, fmt.Sprintf("tls_server_config: {cert_file: cert.pem, key_file: key.pem}\nbasic_auth_users: {%s: %s}\n", user, hash))
	return path
}

// ingests runs the ingester, again if it ran before. vmagent finds out when it is ready.
func (r *agentRig) ingests(args ...string) {
	r.t.Helper()
	if r.in != nil {
		r.in.Kill()
	}
	r.in = r.launchOn(r.on, nil, append(append([]string{}, r.args...), args...)...)
}

// counts adds up a metric of vmagent's, of the URL of a tenant, and of an answer if there is one.
func (r *agentRig) counts(name string, tenant int, answer string) (sum float64, err error) {
	status, body := get(r.t, r.vmagent.URL+"/metrics")
	if status != http.StatusOK {
		return 0, fmt.Errorf("metrics of vmagent: %d", status)
	}
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, name+"{") || !strings.Contains(line, fmt.Sprintf(`url="%d:secret-url"`, tenant+1)) || !strings.Contains(line, answer) {
			continue
		}
		value := line[strings.LastIndexByte(line, ' ')+1:]
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", line, err)
		}
		sum += n
	}
	return sum, nil
}

// answered waits until vmagent has been answered so, both as one and as two.
func (r *agentRig) answered(name, answer string) {
	r.t.Helper()
	for tenant := range agentTenants {
		eventually(r.t, 30*time.Second, func() error {
			n, err := r.counts(name, tenant, answer)
			if err == nil && n == 0 {
				err = fmt.Errorf("%s%s of tenant %s is 0", name, answer, agentTenants[tenant])
			}
			return err
		})
	}
}

// drained waits until nothing waits to be sent, and insists that nothing was dropped.
func (r *agentRig) drained() {
	r.t.Helper()
	for tenant, name := range agentTenants {
		eventually(r.t, time.Minute, func() error {
			n, err := r.counts("vmagent_remotewrite_pending_data_bytes", tenant, "")
			if err == nil && n > 0 {
				err = fmt.Errorf("%v bytes of tenant %s wait", n, name)
			}
			return err
		})
		n, err := r.counts("vmagent_remotewrite_packets_dropped_total", tenant, "")
		require.NoError(r.t, err)
		require.Zero(r.t, n, "blocks of tenant %s that were given up", name)
	}
}

// onDisk is how much waits in the files of vmagent.
func (r *agentRig) onDisk() (bytes int64) {
	r.t.Helper()
	chunks, err := filepath.Glob(filepath.Join(r.vmagent.Queue, "persistent-queue", "*", "0*"))
	require.NoError(r.t, err)
	for _, c := range chunks {
		info, err := os.Stat(c)
		require.NoError(r.t, err)
		bytes += info.Size()
	}
	return bytes
}

// TestVmagent: what a vmagent scrapes is there sample by sample, with TLS, a password, a tenant's header
// and relabelling, by its own protocol and by Prometheus', although the ingester is killed, and vmagent
// stopped meanwhile, and although then the disk is full and the rate of samples limited.
//
// RELIABILITY P1, I10
func TestVmagent(t *testing.T) {
	t.Parallel()
	stays, err := stack.StartApp("127.0.0.1:0", "eu1", 1)
	require.NoError(t, err)
	t.Cleanup(stays.Close)
	goes, err := stack.StartApp("127.0.0.1:0", "eu1", 2)
	require.NoError(t, err)
	t.Cleanup(goes.Close)
	r := newAgentRig(t, stays.Addr, goes.Addr)
	begin := time.Now()
	r.answered("vmagent_remotewrite_requests_total", `status_code="2XX"`)

	r.in.Kill()
	r.answered("vmagent_remotewrite_retries_count_total", "")
	r.vmagent.Stop()
	require.NoError(t, r.vmagent.Err(), r.vmagent.Tail(5))
	require.NotZero(t, r.onDisk(), "what could not be sent")
	require.NoError(t, r.vmagent.Restart(t.Context()))
	r.ingests("--tsdb.min-free=1EiB")
	r.answered("vmagent_remotewrite_requests_total", `status_code="503"`)
	r.ingests("--receive.limits-config=write: {default: {samples_per_second: 1, samples_burst: 1}}")
	r.answered("vmagent_remotewrite_requests_total", `status_code="429"`)
	r.ingests()

	goes.Close()
	q := r.asks(r.in)
	eventually(t, time.Minute, func() error { return r.down(goes, q) })
	end := time.Now()
	eventually(t, time.Minute, func() error { return reached(t, q, end, agentTenants...) })
	r.drained()
	for _, tenant := range agentTenants {
		r.holdsAll(q, tenant, begin, end)
	}
	require.NotContains(t, r.logOfVmagent(), `at "1:secret-url". Downgrading`, "its own protocol is taken")
	r.metadata(q)
}

// down is nil once the end of an app is known everywhere.
func (r *agentRig) down(app *stack.App, q *stack.Firnline) error {
	for base, want := range map[string]int{r.prom.URL: 1, "http://" + q.HTTP: len(agentTenants)} {
		got, err := result(r.t, base, "query", url.Values{"query": {fmt.Sprintf("up{instance=%q} == 0", app.Addr)}})
		if err != nil {
			return err
		}
		if len(got.Result) != want {
			return fmt.Errorf("%d of %d know at %s that %s is down", len(got.Result), want, base, app.Addr)
		}
	}
	return nil
}

// holdsAll compares all samples of a tenant with those of Prometheus, and by ranges where series end.
func (r *agentRig) holdsAll(q *stack.Firnline, tenant string, begin, end time.Time) {
	r.t.Helper()
	window := fmt.Sprintf("[%dms]", end.Sub(begin).Milliseconds())
	all, ours := `{cluster="eu1"}`, fmt.Sprintf(`{cluster="eu1",tenant_id=%q}`, tenant)
	eventually(r.t, 20*time.Second, func() error {
		at := url.Values{"time": {unix(end)}, "query": {all + window}}
		want, err := result(r.t, r.prom.URL, "query", at)
		if err != nil {
			return err
		}
		at.Set("query", ours+window)
		got, err := result(r.t, "http://"+q.HTTP, "query", at)
		if err != nil {
			return err
		}
		for _, s := range want.Result {
			if s.Metric["method"] != "" {
				return errors.New("Prometheus has what relabelling took away")
			}
		}
		return same(r.t, "samples of "+tenant, bySeries(r.t, want), bySeries(r.t, got, "tenant_id", "ingest"))
	})
	for _, expr := range []string{
		`%s`, `rate(app_requests_total%s[10s])`, `histogram_quantile(0.9, sum by (le) (rate(app_request_duration_seconds_bucket%s[10s])))`,
	} {
		samePromQL(r.t, r.prom, q, fmt.Sprintf(expr, all), fmt.Sprintf(expr, ours), begin, end)
	}
}

// metadata looks for type and help of what was scraped.
func (r *agentRig) metadata(q *stack.Firnline) {
	r.t.Helper()
	for metric, want := range map[string]map[string]string{
		"app_requests_total":           {"type": "counter", "help": "Requests answered.", "unit": ""},
		"app_queue_length":             {"type": "gauge", "help": "Requests waiting.", "unit": ""},
		"app_request_duration_seconds": {"type": "histogram", "help": "Time to answer a request.", "unit": ""},
	} {
		eventually(r.t, 20*time.Second, func() error {
			got := metadataOf(r.t, "http://"+q.HTTP, url.Values{"metric": {metric}})
			return same(r.t, "metadata", map[string]string{metric: fmt.Sprint([]map[string]string{want})}, map[string]string{metric: fmt.Sprint(got[metric])})
		})
	}
}

func (r *agentRig) logOfVmagent() string {
	r.t.Helper()
	b, err := os.ReadFile(r.vmagent.LogPath)
	require.NoError(r.t, err)
	return string(b)
}

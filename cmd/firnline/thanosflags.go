package main

import (
	"errors"
	"fmt"
)

// noEffect is a flag of Thanos that needs nothing here. A component that has a
// flag of the same name takes precedence.
type noEffect struct {
	name   string
	isBool bool
	why    string
}

// ignored lists the flags which a command line written for Thanos may have and
// which change no answer, so that it keeps working. What would change one is an error instead.
func ignored() []noEffect {
	const (
		prometheusEngine = "PromQL is evaluated as Prometheus does"
		noTenants        = "requests are not told apart by tenant"
	)
	return []noEffect{
		// Sidecar.
		{"shipper.allow-out-of-order-uploads", true, "a block that can't be shipped never holds up others"},
		{"shipper.skip-corrupted-blocks", true, "a block that can't be shipped never holds up others"},
		// Store gateway.
		{"cache-index-header", true, "index headers are always kept in --data-dir"},
		{"store.enable-lazy-expanded-postings", true, "postings are always chosen by their cost"},
		{"store.posting-group-max-key-series-ratio", false, "postings are always chosen by their cost"},
		{"store.index-header-posting-offsets-in-mem-sampling", false, "the index header has its own layout"},
		{"store.caching-bucket.config", false, "reads are cached by --index-cache-size"},
		{"store.caching-bucket.config-file", false, "reads are cached by --index-cache-size"},
		{"matcher-cache-size", false, "matchers are compiled once a request"},
		{"debug.advertise-compatibility-label", true, "all queriers since 0.8 work without"},
		{"bucket-web-label", false, "there is no page of blocks yet"},
		{"disable-admin-operations", true, "there are none unless --web.enable-admin-api is given"},
		{"delete-delay", false, "nothing is deleted here"},
		{"web.disable-cors", true, "there is no API for browsers here"},
		{"web.disable", true, "there are no pages yet"},
		// Compactor.
		{"downsample.concurrency", false, "downsampling jobs are among those of --compact.concurrency"},
		{"compact.blocks-fetch-concurrency", false, "blocks are read in ranges, none is downloaded"},
		{"compact.enable-vertical-compaction", true, "overlapping blocks are always merged"},
		{"compact.skip-block-with-out-of-order-chunks", true, "chunks out of order are put right, and a block that can't be read is set aside"},
		{"block-viewer.global.sync-block-interval", false, "there is no page of blocks yet"},
		{"block-viewer.global.sync-block-timeout", false, "there is no page of blocks yet"},
		{"debug.halt-on-error", true, "nothing halts: what can't be done is left out, and all else goes on"},
		{"debug.accept-malformed-index", true, "blocks are mended where that is possible, else set aside"},
		// Querier.
		{"query.disable-fallback", true, prometheusEngine},
		{"query.telemetry.request-duration-seconds-quantiles", false, "durations are native histograms"},
		{"query.telemetry.request-samples-quantiles", false, "sizes are native histograms"},
		{"query.telemetry.request-series-seconds-quantiles", false, "sizes are native histograms"},
		{"query.tenant-header", false, noTenants},
		{"query.default-tenant-id", false, noTenants},
		{"query.tenant-label-name", false, noTenants},
		{"query.tenant-certificate-field", false, noTenants},
		{"query.partition-label", false, "queries are evaluated here over all endpoints"},
		{"alert.query-url", false, "there are no pages yet"},
		{"grpc.proxy-strategy", false, "streams are merged as they come"},
		// Receive.
		{"tsdb.no-lockfile", true, "the lock of --tsdb.path goes with its process, and nothing of it is left to be in the way"},
		{"tsdb.enable-native-histograms", true, "native histograms are always taken"},
		{"tsdb.allow-overlapping-blocks", true, "overlapping blocks are always read"},
		{"tsdb.max-retention-bytes", false, "a block goes when it is verified in the bucket and past --tsdb.retention; before the disk is full, --tsdb.min-free stops writes"},
		{"tsdb.write-queue-size", false, "there is no such queue"},
		{"tsdb.memory-snapshot-on-shutdown", true, "the log is read at each start"},
		{"tsdb.head.expanded-postings-cache-size", false, "postings of heads are not cached"},
		{"tsdb.block.expanded-postings-cache-size", false, "postings of local blocks are not cached"},
		{"receive.replica-header", false, "Thanos' routers say the replica in the message, and ours need none"},
		{"receive.forward.async-workers", false, "requests to other nodes wait in no line: --receive.forward-max-requests and --receive.forward-max-bytes bound them"},
		{"receive.replication-protocol", false, "nodes of ours speak their own protocol to each other, and protobuf with Thanos'"},
		{"receive.capnproto-address", false, "Cap'n Proto is not spoken: give Thanos' routers --receive.replication-protocol=protobuf"},
		{"receive.grpc-service-config", false, "what fails is tried again by the sender; --receive-forward-timeout and --receive-forward-max-backoff bound it"},
		{"receive.lazy-retrieval-max-buffered-responses", false, "answers stream"},
		{"enable-feature", false, "nothing here has to be switched on as a feature"},
		// All.
		{"web.external-prefix", false, "there are no pages yet"},
		{"web.prefix-header", false, "there are no pages yet"},
		{"debug.name", false, "log lines have the component's name"},
	}
}

// elsewhere lists the flags of Thanos that would change what is done, and for
// which there is another place here: they are refused with the way there.
func elsewhere() []noEffect {
	const (
		limitsFile = "set %s in the file of --receive.limits-config-file, for all tenants under write: {default: …} or for one"
		webConfig  = "TLS of remote write is that of HTTP: set it in the file of --http.config (tls_server_config: cert_file, key_file, client_ca_file, client_auth_type, min_version)"
	)
	return []noEffect{
		{"receive.otlp-enable-target-info", true, fmt.Sprintf(limitsFile, "otlp: {target_info: …}")},
		{"receive.otlp-promote-resource-attributes", false, fmt.Sprintf(limitsFile, "otlp: {promote_resource_attributes: […]}")},
		{"receive.relabel-config", false, fmt.Sprintf(limitsFile, "relabel_configs: […]")},
		{"receive.relabel-config-file", false, fmt.Sprintf(limitsFile, "relabel_configs: […]")},
		{"remote-write.server-tls-cert", false, webConfig},
		{"remote-write.server-tls-key", false, webConfig},
		{"remote-write.server-tls-client-ca", false, webConfig},
		{"remote-write.server-tls-min-version", false, webConfig},
		{"remote-write.server-tls-ciphers", false, webConfig},
		{"remote-write.server-tls-curves", false, webConfig},
	}
}

type ignoredValue struct {
	flags *flags
	flag  noEffect
}

// Set notes that the flag was given.
func (v ignoredValue) Set(string) error {
	v.flags.notes = append(v.flags.notes, fmt.Sprintf("--%s is accepted but has no effect: %s", v.flag.name, v.flag.why))
	return nil
}

// String implements pflag.Value.
func (v ignoredValue) String() string { return "" }

// Type implements pflag.Value.
func (v ignoredValue) Type() string { return "value" }

// elsewhereValue is a flag that is refused with its hint. What asks for nothing passes.
type elsewhereValue struct{ flag noEffect }

// Set refuses the flag.
func (v elsewhereValue) Set(s string) error {
	if s == "" {
		return nil
	}
	return errors.New(v.flag.why)
}

// String implements pflag.Value.
func (v elsewhereValue) String() string { return "" }

// Type implements pflag.Value.
func (v elsewhereValue) Type() string { return "value" }

package main

import (
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
	const prometheusEngine = "PromQL is evaluated as Prometheus does"
	return []noEffect{
		// Sidecar.
		{"shipper.ignore-unequal-block-size", true, "local compaction needs no switching off"},
		{"shipper.allow-out-of-order-uploads", true, "a block that can't be shipped never holds up others"},
		{"shipper.skip-corrupted-blocks", true, "a block that can't be shipped never holds up others"},
		{"hash-func", false, "uploads are verified by their sizes"},
		// Store gateway.
		{"block-discovery-strategy", false, "blocks are found by the cheapest listing that the bucket has"},
		{"cache-index-header", true, "index headers are always kept in --data-dir"},
		{"store.enable-index-header-lazy-reader", true, "index headers are always loaded when first needed"},
		{"store.enable-lazy-expanded-postings", true, "postings are always chosen by their cost"},
		{"store.posting-group-max-key-series-ratio", false, "postings are always chosen by their cost"},
		{"store.index-header-posting-offsets-in-mem-sampling", false, "the index header has its own layout"},
		{"store.index-header-lazy-reader-idle-timeout", false, "index headers are unloaded when memory is needed"},
		{"store.caching-bucket.config", false, "reads are cached by --index-cache-size"},
		{"store.caching-bucket.config-file", false, "reads are cached by --index-cache-size"},
		{"matcher-cache-size", false, "matchers are compiled once a request"},
		{"debug.series-batch-size", false, "batches are sized by bytes"},
		{"debug.estimated-max-series-size", false, "sizes come from the index"},
		{"debug.estimated-max-chunk-size", false, "sizes come from the index"},
		{"debug.advertise-compatibility-label", true, "all queriers since 0.8 work without"},
		{"bucket-web-label", false, "there is no page of blocks yet"},
		{"disable-admin-operations", true, "there are none"},
		{"web.disable", true, "there are no pages yet"},
		// Querier.
		{"query.promql-engine", false, prometheusEngine},
		{"query.disable-fallback", true, prometheusEngine},
		{"query.dynamic-lookback-delta", true, "lookback is widened to the resolution of downsampled data"},
		{"query.telemetry.request-duration-seconds-quantiles", false, "durations are native histograms"},
		{"query.telemetry.request-samples-quantiles", false, "sizes are native histograms"},
		{"query.telemetry.request-series-seconds-quantiles", false, "sizes are native histograms"},
		{"query.conn-metric.label", false, "connections are counted by group"},
		{"query.active-query-path", false, "running queries are in the log and the metrics"},
		{"query.lazy-retrieval-max-buffered-responses", false, "streams are merged as they come"},
		{"grpc.proxy-strategy", false, "streams are merged as they come"},
		{"store.sd-dns-resolver", false, "Go's resolver is used"},
		// All.
		{"web.external-prefix", false, "there are no pages yet"},
		{"web.prefix-header", false, "there are no pages yet"},
		{"debug.name", false, "log lines have the component's name"},
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

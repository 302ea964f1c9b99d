package main

// flagsApart are the names that mean different things in the components, or
// whose right values differ: `firnline all` has one for each, with the component's name before.
func flagsApart() []string {
	return []string{
		"consistency-delay", // a gateway can serve a block at once; a compactor waits for all that belongs to it
		"data-dir",          // each owns its folder; the one --data-dir is above them
		"min-time",          // of live data, of blocks served, of blocks compacted
		"max-time",
		"notes.disk", // of one Prometheus, of each tenant
		"tsdb.path",  // Prometheus' folder, our own
	}
}

// flagUsages are the texts of flags that mean something else here, or that are
// given once though their texts differ from component to component.
func flagUsages() map[string]string {
	return map[string]string{
		"compact.data-dir":             "Local folder of the compactor: copies of meta.json, and the results of jobs until they are uploaded. Empty: compact/ below --data-dir.",
		"ingest.tsdb.path":             "Local folder of the tenants' TSDBs. Empty: ingest/ below --data-dir.",
		"prometheus.url":               "Address of a Prometheus to stand beside, with the path of its --web.route-prefix if it has one. Empty: there is none, and no sidecar.",
		"sidecar.tsdb.path":            "Folder of Prometheus' TSDB, its --storage.tsdb.path. Blocks are shipped from there. Empty: only its live data is answered from.",
		"store.data-dir":               "Local folder of the gateway: copies of meta.json and index headers. Empty: store/ below --data-dir.",
		"ring.bind-address":            "Address (host:port) that gossip listens on. As it stands nobody can join, and without --ring.join nothing listens; 0.0.0.0:7946 lets others in.",
		"deduplication.func":           "How replicas become one series, in queries (--query.replica-label) and when blocks are merged (--deduplication.replica-label): firnline stays with a replica while it has samples and fills its gaps from the others; penalty is Thanos' algorithm; chain takes every sample of every replica.",
		"hash-func":                    "Hash of every file to put into meta.json: SHA256, or empty for none. Costs one more reading of each file that is shipped.",
		"store.limits.request-samples": "Samples that one request may read, of each component and in all. 0: no limit.",
		"store.limits.request-series":  "Series that one request may read, of each component and in all. 0: no limit.",
		"web.enable-admin-api":         "Let the HTTP API create and cancel requests to delete series, cut heads into blocks (POST /api/v1/ingest/flush) and forget dead members of the ring.",
	}
}

// flagsLeftOut can have but one value in `firnline all`.
func flagsLeftOut() []string {
	return []string{
		"wait",        // it always goes on
		"ingest.role", // it always takes and owns
		// A ring of others' making is for processes of their own; one's own ring is --ring.join.
		"receive.hashrings", "receive.hashrings-file", "receive.hashrings-file-refresh-interval", "receive.hashrings-algorithm", "receive.local-endpoint",
	}
}

// flagsEveryday are those that --help shows.
func flagsEveryday() []string {
	return []string{
		"config.file", "data-dir", "self-scrape.interval",
		"prometheus.url", "sidecar.tsdb.path", "endpoint",
		"otlp.grpc-address", "otlp.http-address", "remote-write.address", "query.address",
		"ingest.sync", "label", "tsdb.out-of-order.time-window", "tsdb.max-exemplars",
		"objstore.config", "objstore.config-file",
		"index-cache-size", "chunk-pool-size", "compact.memory", "compact.concurrency", "delete-delay",
		"downsampling.disable", "retention.policy-file", "retention.resolution-1h", "retention.resolution-5m", "retention.resolution-raw",
		"deduplication.func", "deduplication.replica-label", "query.replica-label", "query.lookback-delta", "query.auto-downsampling",
		"receive.default-tenant-id", "receive.tenant-header", "receive.limits-config-file",
		"ingest.max-bytes-in-flight", "query.max-concurrent", "query.max-samples", "query.timeout", "store.limits.request-samples", "store.limits.request-series",
		"grpc-address", "grpc-server-tls-cert", "grpc-server-tls-client-ca", "grpc-server-tls-key", "http-address", "http.config",
		"web.enable-admin-api", "web.enable-lifecycle", "web.external-prefix", "web.route-prefix",
		"log.format", "log.level", "tracing.config-file",
	}
}

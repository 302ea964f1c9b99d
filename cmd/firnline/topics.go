package main

import "strings"

// Topics under which --help groups flags, in the order it prints them.
const (
	topicGeneral    = "General"
	topicListeners  = "Listeners"
	topicPrometheus = "Prometheus"
	topicBucket     = "Object storage"
	topicShipping   = "Shipping blocks"
	topicBlocks     = "Blocks and cache"
	topicCompaction = "Compaction"
	topicRetention  = "Retention and downsampling"
	topicEndpoints  = "Endpoints"
	topicQueries    = "Queries"
	topicTenants    = "Tenants"
	topicLimits     = "Limits"
	topicIngest     = "Ingest"
	topicRing       = "Ring"
	topicHeads      = "Local data"
	topicForward    = "Forwarding"
	topicLogs       = "Logging and tracing"
)

func topics() []string {
	return []string{topicGeneral, topicPrometheus, topicEndpoints, topicIngest, topicRing, topicHeads, topicForward, topicBucket, topicShipping, topicBlocks,
		topicCompaction, topicRetention,
		topicQueries, topicTenants, topicLimits, topicListeners, topicLogs}
}

// topicOf says where --help shows a flag. The longest beginning that fits decides.
func topicOf(name string) string {
	best, topic := "", topicGeneral
	for _, t := range []struct{ topic, beginnings string }{
		{topicListeners, "http grpc-server grpc-address grpc-grace web. shutdown-delay query.address"},
		{topicPrometheus, "prometheus. reloader. sidecar."},
		{topicIngest, "ingest. otlp. remote-write.address receive.active-series"},
		{topicRing, "ring. receive.replication receive.hashrings receive.local-endpoint receive.forward receive-forward receive.grpc-compression remote-write.client ingest.role ingest.leave"},
		{topicHeads, "tsdb. label ingest.sync ingest.tsdb ingest.notes"},
		{topicForward, "ingest.forward"},
		{topicBucket, "objstore"},
		{topicShipping, "shipper. hash-func notes."},
		{topicBlocks, "data-dir block- delete-requests. sync- consistency-delay ignore-deletion selector.relabel index-cache chunk-pool store.index-header store.read store.chunk store.data-dir store.notes store.consistency-delay store.min-time store.max-time debug. min-time max-time"},
		{topicCompaction, "wait compact. delete-delay block-files"},
		{topicRetention, "retention. downsampling."},
		{topicEndpoints, "endpoint store.sd store.response-timeout store.unhealthy store.select grpc-client grpc-compression selector-label"},
		{topicQueries, "query. deduplication. enable-feature alert. store. rule. target. metric-metadata. exemplar. status."},
		{topicTenants, "query.tenant query.enforce-tenancy query.default-tenant receive.tenant receive.default-tenant receive.split-tenant receive.peer-certificate"},
		{topicLimits, "receive.limits receive.max-tenants receive.catalog ingest.max ingest.memory-watermark ingest.cpu-watermark ingest.delta storage.remote store.limits store.grpc query.max query.timeout query.limits prometheus.max http-max http-read http-write http-idle grpc-server-max"},
		{topicLogs, "log. tracing. request.logging query.log"},
	} {
		for _, b := range strings.Fields(t.beginnings) {
			if strings.HasPrefix(name, b) && len(b) > len(best) {
				best, topic = b, t.topic
			}
		}
	}
	return topic
}

// rare tells flags that only --help-all shows.
func rare(name string) bool {
	for _, b := range strings.Fields(`
		http-max http-read http-write http-idle grpc-server-max grpc-server-tls-ciphers grpc-server-tls-curves web.config.file
		debug. prometheus.read-idle prometheus.max prometheus.label-names store.limits.sort
		store.read store.chunk-window store.index-header-lazy-reader store.enable-index-header
		objstore.retry objstore.max objstore.timeout
		receive.catalog.idle receive.forward- receive-forward receive.hashrings-file-refresh receive.limits-config-reload receive.grpc-compression receive.active-series
		remote-write.client-server-name remote-write.client-tls-min remote-write.client-tls-skip
		ring.cluster-label ring.forget ring.heartbeat ring.join-wait ring.tls-server-name ring.tls-skip ring.tokens
		tsdb.cut tsdb.damaged tsdb.max-block tsdb.max-sessions tsdb.max-metadata tsdb.min-block tsdb.out-of-order.cap tsdb.replay tsdb.sync-delay tsdb.wal-compression
		ingest.delta ingest.forward-config-interval ingest.leave-timeout ingest.max-items ingest.sync-interval
		shipper.tenant-concurrency shipper.max-backoff shipper.quarantine
		compact.lease-ttl compact.cleanup-interval compact.progress-interval compact.block-max retention.policy-interval`) {
		if strings.HasPrefix(name, b) {
			return true
		}
	}
	return false
}

local l = import 'lib.libsonnet';

l.dashboard('store', 'Store', 'firnline_store_blocks_loaded', [
  l.row('Blocks', [
    l.graph('Blocks served', 'short', [['firnline_store_blocks_loaded{}', '{{instance}}'], ['firnline_store_blocks_quarantined{}', '{{instance}} quarantined']]),
    l.graph('Blocks of the bucket by state', 'short', [['max by (state) (firnline_fetcher_blocks{})', '{{state}}']]),
    l.graph('Since the last look at the bucket', 's', [['time() - firnline_fetcher_last_success_timestamp_seconds{}', '{{instance}}']]),
    l.latency('Time of a look at the bucket', 'firnline_store_sync_duration_seconds'),
    l.graph('Index headers', 'short', [['firnline_store_index_header_loaded{}', '{{instance}} loaded'], ['rate(firnline_store_index_header_builds_total{}[$__rate_interval])', '{{instance}} built a second']]),
    l.graph('Blocks that could not be read', 'cps', [['rate(firnline_store_series_block_failures_total{}[$__rate_interval])', '{{instance}}']]),
  ]),
  l.row('Requests', [
    l.graph('Calls', 'reqps', [['sum by (method, code) (rate(firnline_server_grpc_requests_total{}[$__rate_interval]))', '{{method}} {{code}}']]),
    l.latency('Time of calls', 'firnline_server_grpc_request_duration_seconds', by='method'),
    l.graph('Turns', 'short', [['firnline_store_series_gate_in_flight{}', '{{instance}} being served'], ['firnline_store_series_gate_waiting{}', '{{instance}} waiting']]),
    l.latency('Wait for a turn', 'firnline_store_series_gate_duration_seconds'),
    l.graph('Blocks a request', 'short', [['histogram_quantile(0.9, sum by (le) (rate(firnline_store_series_blocks_queried_bucket{}[$__rate_interval])))', 'p9']]),
    l.graph('Refused by a limit', 'reqps', [['rate(firnline_store_requests_refused_total{}[$__rate_interval])', '{{instance}}']]),
  ]),
  l.row('What queries cost', [
    l.graph('Ranged reads', 'reqps', [['sum by (instance) (rate(firnline_store_fetch_reads_total{}[$__rate_interval]))', '{{instance}}'], ['sum by (instance) (rate(firnline_store_fetch_retries_total{}[$__rate_interval]))', '{{instance}} again']]),
    l.graph('Bytes read', 'Bps', [['sum by (data_type) (rate(firnline_store_series_data_fetched_bytes_total{}[$__rate_interval]))', '{{data_type}}']]),
    l.graph('Reads that wait', 'short', [['firnline_store_fetch_waiting{}', '{{instance}}']]),
    l.graph('Index cache, share of hits', 'percentunit', [['sum by (item_type) (rate(firnline_store_index_cache_hits_total{}[$__rate_interval])) / sum by (item_type) (rate(firnline_store_index_cache_requests_total{}[$__rate_interval]))', '{{item_type}}']]),
    l.graph('Index cache, size', 'bytes', [['firnline_store_index_cache_size_bytes{}', '{{instance}}']]),
    l.graph('Exemplars and metadata', 'reqps', [['rate(firnline_store_notes_requests_total{}[$__rate_interval])', '{{instance}} asked for'], ['rate(firnline_store_notes_reads_total{}[$__rate_interval])', '{{instance}} read']]),
  ]),
  l.process,
])

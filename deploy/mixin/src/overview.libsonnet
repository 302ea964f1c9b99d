local l = import 'lib.libsonnet';

l.dashboard('overview', 'Overview', 'firnline_build_info', [
  l.row('Is all well?', [
    l.stat('Processes', 'short', 'count(firnline_build_info{})', 'Processes that are scraped.'),
    l.stat('Queries that fail', 'percentunit', 'max(job:firnline_query_errors:ratio_rate5m{job=~"$job"})', 'Share of queries answered with an error that is not the client\'s.', 0.01, 0.05),
    l.stat('Writes that fail', 'percentunit', 'max(job:firnline_ingest_errors:ratio_rate5m{job=~"$job"})', 'Share of samples sent that were refused.', 0.001, 0.01),
    l.stat('Endpoints down', 'short', 'sum(firnline_query_endpoints{&state="unhealthy"})', 'Endpoints that don\'t answer queriers.', 1, 1),
    l.stat('Blocks not shipped', 'short', 'sum(firnline_shipper_pending_blocks{})', 'Blocks that wait on local disks.', 10, 50),
    l.stat('Compaction left', 'h', 'max(firnline_compact_backlog_hours{})', 'What one worker would take for all that is to be done.', 24, 72),
  ]),
  l.row('Reads', [
    l.graph('Queries', 'reqps', [['sum by (route, code) (rate(firnline_query_api_requests_total{}[$__rate_interval]))', '{{route}} {{code}}']]),
    l.latency('Time of queries', 'firnline_query_api_request_duration_seconds', matchers='{&route=~"/query|/query_range"}'),
    l.graph('Answers that lack data', 'reqps', [['sum by (job) (rate(firnline_query_partial_answers_total{}[$__rate_interval]))', '{{job}}']], 'Selections that were answered without an endpoint or a block.'),
  ]),
  l.row('Writes', [
    l.graph('Samples', 'cps', [['sum by (job) (rate(firnline_ingest_intake_samples_total{}[$__rate_interval]))', '{{job}}']]),
    l.graph('Samples refused', 'cps', [['sum by (reason) (rate(firnline_ingest_request_refused_samples_total{}[$__rate_interval]))', '{{reason}}']]),
    l.graph('Series in memory', 'short', [['sum by (job) (firnline_ingest_tsdb_head_series{})', '{{job}}']], 'Each replica counts.'),
  ]),
  l.row('History', [
    l.stacked('Data by resolution', 'bytes', [['sum by (resolution) (max by (job, group, resolution) (firnline_compact_tier_bytes{}))', '{{resolution}}']]),
    l.graph('Blocks served', 'short', [['firnline_store_blocks_loaded{}', '{{instance}}']]),
    l.graph('Operations on the bucket', 'ops', [['sum by (operation) (rate(firnline_objstore_bucket_operations_total{}[$__rate_interval]))', '{{operation}}']]),
  ]),
  l.row('Proof', [
    l.graph('Samples read back wrong', 'short', [['sum by (instance, what) (increase(firnline_prove_mismatches_total{}[$__rate_interval]))', '{{instance}} {{what}}']], 'By firnline tools prove, if it runs. Anything but zero is a fault.'),
    l.graph('Windows read back', 'reqps', [
      ['sum by (how) (rate(firnline_prove_checks_total{}[$__rate_interval]))', '{{how}}'],
      ['sum by (how) (rate(firnline_prove_check_failures_total{}[$__rate_interval]))', '{{how}}, could not be read'],
    ]),
    l.graph('Times written', 'reqps', [
      ['sum by (instance) (rate(firnline_prove_writes_total{}[$__rate_interval]))', '{{instance}}'],
      ['sum by (instance) (rate(firnline_prove_write_failures_total{}[$__rate_interval]))', '{{instance}} failed'],
    ]),
  ]),
  l.row('Processes', [
    l.graph('CPU', 'short', [['sum by (job) (rate(process_cpu_seconds_total{}[$__rate_interval]))', '{{job}}']], 'Cores in use.'),
    l.graph('Memory', 'bytes', [['sum by (job) (process_resident_memory_bytes{})', '{{job}}']]),
    l.graph('Versions', 'short', [['count by (version) (firnline_build_info{})', '{{version}}']]),
  ]),
])

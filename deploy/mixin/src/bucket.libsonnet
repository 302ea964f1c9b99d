local l = import 'lib.libsonnet';

// Days of 86400 s, since object stores are paid for by requests and bytes.
l.dashboard('bucket', 'Bucket', 'firnline_objstore_bucket_operations_total', [
  l.row('What is paid for', [
    l.stat('Reads a day', 'short', 'sum(rate(firnline_objstore_bucket_operations_total{&operation=~"get|get_range|get_if|attributes|exists"}[1h])) * 86400', 'At the rate of the last hour.'),
    l.stat('Listings a day', 'short', 'sum(rate(firnline_objstore_bucket_operations_total{&operation=~"iter|list"}[1h])) * 86400', 'At the rate of the last hour.'),
    l.stat('Writes a day', 'short', 'sum(rate(firnline_objstore_bucket_operations_total{&operation=~"upload|put_if|copy"}[1h])) * 86400', 'At the rate of the last hour.'),
    l.stat('Stored', 'bytes', 'sum(max by (group, resolution) (firnline_compact_tier_bytes))', 'As the compactors see it, marked blocks left out.'),
  ]),
  l.row('Operations', [
    l.graph('By operation', 'ops', [['sum by (operation) (rate(firnline_objstore_bucket_operations_total{}[$__rate_interval]))', '{{operation}}']]),
    l.graph('By component', 'ops', [['sum by (job) (rate(firnline_objstore_bucket_operations_total{}[$__rate_interval]))', '{{job}}']]),
    l.graph('Failures', 'ops', [['sum by (job, operation) (rate(firnline_objstore_bucket_operation_failures_total{}[$__rate_interval]))', '{{job}} {{operation}}']]),
    l.latency('Time until the answer', 'firnline_objstore_bucket_operation_duration_seconds', by='operation'),
    l.graph('Bytes read', 'Bps', [['sum by (job) (rate(firnline_objstore_bucket_read_bytes_total{}[$__rate_interval]))', '{{job}}']]),
    l.graph('Bytes written', 'Bps', [['sum by (job) (rate(firnline_objstore_bucket_sent_bytes_total{}[$__rate_interval]))', '{{job}}']]),
  ]),
  l.row('Pressure', [
    l.graph('Under way', 'short', [['firnline_objstore_bucket_requests_in_flight{}', '{{instance}}'], ['firnline_objstore_bucket_requests_queued{}', '{{instance}} waiting'], ['firnline_objstore_bucket_concurrency_limit{}', '{{instance}} at most']]),
    l.graph('Tried again', 'ops', [['sum by (job) (rate(firnline_objstore_bucket_retries_total{}[$__rate_interval]))', '{{job}}']]),
    l.graph('Refused by the store', 'ops', [['sum by (job) (rate(firnline_objstore_bucket_throttled_total{}[$__rate_interval]))', '{{job}}']]),
  ]),
])

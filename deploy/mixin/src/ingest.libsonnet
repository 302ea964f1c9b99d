local l = import 'lib.libsonnet';

l.dashboard('ingest', 'Ingest', 'firnline_ingest_tenants', [
  l.row('Writes', [
    l.graph('Samples taken', 'cps', [['sum by (instance) (rate(firnline_ingest_intake_samples_total{}[$__rate_interval]))', '{{instance}}']]),
    l.latency('Time of writes', 'firnline_ingest_write_duration_seconds', by='protocol'),
    l.graph('Samples refused', 'cps', [['sum by (reason) (rate(firnline_ingest_request_refused_samples_total{}[$__rate_interval]))', '{{reason}}']]),
    l.graph('Requests refused', 'reqps', [['sum by (reason) (rate(firnline_ingest_refused_requests_total{}[$__rate_interval]))', '{{reason}}']]),
    l.graph('Turned away early', 'reqps', [['sum by (lack) (rate(firnline_ingest_overloaded_total{}[$__rate_interval]))', '{{lack}}']]),
    l.graph('Left out', 'cps', [['sum(rate(firnline_ingest_intake_dropped_samples_total{}[$__rate_interval]))', 'by rules'], ['sum(rate(firnline_ingest_intake_standby_samples_total{}[$__rate_interval]))', 'of the standby of a pair']]),
  ]),
  l.row('Load', [
    l.graph('Requests under way', 'short', [['firnline_ingest_requests_in_flight{}', '{{instance}}']]),
    l.graph('Bytes under way', 'bytes', [['firnline_ingest_bytes_in_flight{}', '{{instance}}']]),
    l.graph('Use of resources', 'percentunit', [['firnline_ingest_usage_ratio{}', '{{instance}} {{resource}}']]),
  ]),
  l.row('Series', [
    l.graph('Series in heads', 'short', [['firnline_ingest_tsdb_head_series{}', '{{instance}}']]),
    l.graph('Series made and removed', 'cps', [['sum(rate(firnline_ingest_tsdb_head_series_created_total{}[$__rate_interval]))', 'made'], ['sum(rate(firnline_ingest_tsdb_head_series_removed_total{}[$__rate_interval]))', 'removed']]),
    l.graph('Nearest to its limit', 'percentunit', [['firnline_ingest_series_limit_usage_ratio{}', '{{instance}}']]),
    l.graph('Series that routers remember', 'short', [['firnline_ingest_catalog_series{}', '{{instance}}'], ['firnline_ingest_catalog_max_series{}', '{{instance}} at most']]),
    l.graph('Out of order', 'cps', [['sum(rate(firnline_ingest_tsdb_head_out_of_order_samples_appended_total{}[$__rate_interval]))', 'taken'], ['sum(rate(firnline_ingest_tsdb_too_old_samples_total{}[$__rate_interval]))', 'too old']]),
    l.graph('Tenants', 'short', [['firnline_ingest_tenants{}', '{{instance}}'], ['sum by (instance, why) (firnline_ingest_tenants_read_only{})', '{{instance}} read-only: {{why}}'], ['firnline_ingest_tenants_failed{}', '{{instance}} failed']]),
  ]),
  l.row('Ring', [
    l.graph('Nodes', 'short', [['max by (state) (firnline_ring_instances{})', '{{state}}']]),
    l.graph('Changes', 'short', [['increase(firnline_ring_changes_total{}[$__rate_interval])', '{{instance}}']]),
    l.graph('Elections of senders', 'short', [['sum(increase(firnline_ingest_ha_elections_total{}[$__rate_interval]))', 'elections']]),
  ]),
  l.row('Disk and shipping', [
    l.graph('Logs and blocks', 'bytes', [['firnline_ingest_tsdb_wal_storage_size_bytes{}', '{{instance}} logs'], ['firnline_ingest_tsdb_storage_blocks_bytes{}', '{{instance}} blocks']]),
    l.graph('Free space', 'bytes', [['firnline_ingest_disk_free_bytes{}', '{{instance}}']]),
    l.latency('Time of a sync', 'firnline_ingest_sync_duration_seconds'),
    l.graph('Blocks to be shipped', 'short', [['firnline_shipper_pending_blocks{} and on (job, instance) firnline_ingest_tenants{}', '{{instance}}']]),
    l.graph('Shipped', 'Bps', [['rate(firnline_shipper_upload_bytes_total{}[$__rate_interval]) and on (job, instance) firnline_ingest_tenants{}', '{{instance}}']]),
    l.graph('Forwarding: queues', 'bytes', [['firnline_ingest_forward_queue_bytes{}', '{{instance}} {{endpoint}}']]),
  ]),
  l.process,
])

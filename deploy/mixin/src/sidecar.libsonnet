local l = import 'lib.libsonnet';

l.dashboard('sidecar', 'Sidecar', 'firnline_sidecar_prometheus_up', [
  l.row('Prometheus', [
    l.graph('Prometheus answers', 'short', [['firnline_sidecar_prometheus_up{}', '{{instance}}']]),
    l.graph('Configuration in force', 'short', [['firnline_sidecar_config_last_reload_successful{}', '{{instance}}']]),
    l.graph('Flags that don\'t fit', 'short', [['firnline_sidecar_prometheus_flag_mismatches{}', '{{instance}}']]),
  ]),
  l.row('Shipping', [
    l.graph('Blocks to be shipped', 'short', [['firnline_shipper_pending_blocks{} and on (job, instance) firnline_sidecar_prometheus_up{}', '{{instance}}']]),
    l.graph('Shipped', 'Bps', [['rate(firnline_shipper_upload_bytes_total{}[$__rate_interval]) and on (job, instance) firnline_sidecar_prometheus_up{}', '{{instance}}']]),
    l.graph('Since all was shipped', 's', [['time() - firnline_shipper_last_success_timestamp_seconds{}', '{{instance}}']]),
    l.graph('Failures', 'cps', [['rate(firnline_shipper_upload_failures_total{}[$__rate_interval])', '{{instance}}']]),
    l.graph('Held or corrupt', 'short', [['firnline_shipper_held{}', '{{instance}} held'], ['firnline_shipper_quarantined_blocks{}', '{{instance}} corrupt blocks']]),
    l.graph('Exemplars kept', 'cps', [['rate(firnline_notes_exemplars_total{}[$__rate_interval])', '{{instance}}']]),
  ]),
  l.row('Reads', [
    l.graph('Series requests', 'reqps', [['sum by (result) (rate(firnline_sidecar_series_requests_total{}[$__rate_interval]))', '{{result}}']]),
    l.graph('Under way', 'short', [['firnline_sidecar_reads_in_flight{}', '{{instance}}'], ['firnline_sidecar_reads_waiting{}', '{{instance}} waiting']]),
    l.graph('Chunks read', 'Bps', [['rate(firnline_sidecar_read_chunk_bytes_total{}[$__rate_interval])', '{{instance}}']]),
  ]),
  l.process,
])

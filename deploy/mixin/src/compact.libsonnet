local l = import 'lib.libsonnet';

l.dashboard('compact', 'Compact', 'firnline_compact_backlog_hours', [
  l.row('Work', [
    l.stat('Left to do', 'h', 'max(firnline_compact_backlog_hours{})', 'What one worker would take.', 24, 72),
    l.stat('Failing jobs', 'short', 'sum(firnline_compact_failing_jobs{})', 'Tried again by themselves.', 1, 5),
    l.stat('Blocks set aside', 'short', 'max(firnline_compact_set_aside_blocks{&by="compact"})', 'They can\'t be used.', 1, 1),
    l.stat('Groups resting', 'short', 'max(firnline_compact_resting_groups{})', 'Another program compacts them.', 1, 1),
    l.stat('Retention waits', 'short', 'sum(max by (resolution) (firnline_compact_retention_held_blocks{}))', 'Expired blocks of which the coarser data is not there yet.', 1, 100),
  ]),
  l.row('Jobs', [
    l.graph('Jobs done', 'short', [['sum by (kind) (increase(firnline_compact_jobs_total{}[$__rate_interval]))', '{{kind}}']]),
    l.graph('Jobs that failed', 'short', [['sum by (kind) (increase(firnline_compact_job_failures_total{}[$__rate_interval]))', '{{kind}}']]),
    l.latency('Time of a job', 'firnline_compact_job_duration_seconds', by='kind'),
    l.stacked('Jobs to be done', 'short', [['sum by (kind) (max by (job, group, kind) (firnline_compact_backlog_jobs{}))', '{{kind}}']]),
    l.graph('Largest backlogs', 'bytes', [['topk(5, max by (group) (firnline_compact_backlog_bytes{}))', '{{group}}']]),
    l.graph('Since each loop came round', 's', [['time() - max by (loop) (firnline_compact_last_round_timestamp_seconds{} > 0)', '{{loop}}']]),
  ]),
  l.row('Data', [
    l.stacked('Bytes by resolution', 'bytes', [['sum by (resolution) (max by (group, resolution) (firnline_compact_tier_bytes{}))', '{{resolution}}']]),
    l.graph('Oldest data', 's', [['time() - min by (resolution) (firnline_compact_tier_start_seconds{} > 0)', '{{resolution}}']]),
    l.graph('Newest data', 's', [['time() - max by (resolution) (firnline_compact_tier_end_seconds{})', '{{resolution}}']]),
    l.graph('Read and written', 'Bps', [['sum(rate(firnline_compact_read_bytes_total{}[$__rate_interval]))', 'read'], ['sum by (resolution) (rate(firnline_compact_written_bytes_total{}[$__rate_interval]))', 'written {{resolution}}']]),
    l.graph('Blocks marked', 'short', [['sum by (why) (increase(firnline_compact_blocks_marked_total{}[$__rate_interval]))', '{{why}}']]),
    l.graph('Blocks removed', 'short', [['sum by (why) (increase(firnline_compact_blocks_removed_total{}[$__rate_interval]))', '{{why}}']]),
  ]),
  l.row('Safety', [
    l.graph('Clock of the bucket, ahead of ours', 's', [['firnline_compact_clock_skew_seconds{}', '{{instance}}']]),
    l.graph('Results that did not stand up', 'short', [['increase(firnline_compact_results_unverified_total{}[$__rate_interval])', '{{instance}}']]),
    l.graph('Free space', 'bytes', [['firnline_compact_disk_free_bytes{}', '{{instance}}']]),
  ]),
  l.process,
])

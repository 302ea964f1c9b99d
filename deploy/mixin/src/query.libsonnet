local l = import 'lib.libsonnet';

l.dashboard('query', 'Query', 'firnline_query_endpoints', [
  l.row('Requests', [
    l.graph('Requests', 'reqps', [['sum by (route, code) (rate(firnline_query_api_requests_total{}[$__rate_interval]))', '{{route}} {{code}}']]),
    l.latency('Time of queries', 'firnline_query_api_request_duration_seconds', by='route', matchers='{&route=~"/query|/query_range"}'),
    l.graph('Under way', 'short', [['sum by (route) (firnline_query_api_requests_in_flight{})', '{{route}}']]),
    l.graph('Slots of the engine', 'short', [
      ['firnline_query_engine_running{}', '{{instance}} running'],
      ['firnline_query_engine_waiting{}', '{{instance}} waiting'],
      ['firnline_query_engine_slots{}', '{{instance}} slots'],
    ]),
    l.graph('Failed queries', 'reqps', [['sum by (kind) (rate(firnline_query_engine_errors_total{}[$__rate_interval]))', '{{kind}}']]),
    l.graph('Answers with warnings', 'reqps', [['sum by (instance) (rate(firnline_query_api_answers_with_warnings_total{}[$__rate_interval]))', '{{instance}}']]),
  ]),
  l.row('Endpoints', [
    l.graph('Endpoints', 'short', [['sum by (instance, state) (firnline_query_endpoints{})', '{{instance}} {{state}}']]),
    l.graph('Calls', 'reqps', [['sum by (call, result) (rate(firnline_query_endpoint_calls_total{}[$__rate_interval]))', '{{call}} {{result}}']]),
    l.graph('Calls under way', 'short', [['firnline_query_endpoint_calls_in_flight{}', '{{instance}}']]),
    l.graph('Answers that lack data', 'reqps', [['sum by (instance) (rate(firnline_query_partial_answers_total{}[$__rate_interval]))', '{{instance}}']]),
    l.graph('Corrupt answers', 'reqps', [['rate(firnline_storeapi_client_corrupt_answers_total{}[$__rate_interval])', '{{instance}}']]),
    l.graph('Failed health checks', 'reqps', [['rate(firnline_query_endpoint_check_failures_total{}[$__rate_interval])', '{{instance}}']]),
  ]),
  l.row('Series', [
    l.graph('Selections', 'reqps', [['sum by (instance) (rate(firnline_query_selects_total{}[$__rate_interval]))', '{{instance}}']]),
    l.graph('Series', 'cps', [
      ['sum(rate(firnline_query_fanout_series_total{}[$__rate_interval]))', 'received'],
      ['sum(rate(firnline_query_selected_series_total{}[$__rate_interval]))', 'selected'],
      ['sum(rate(firnline_query_deduplicated_series_total{}[$__rate_interval]))', 'made of several replicas'],
    ]),
    l.graph('Beyond a limit', 'reqps', [['sum by (instance) (rate(firnline_query_fanout_limited_total{}[$__rate_interval]))', '{{instance}}']]),
  ]),
  l.process,
])

// What the dashboards are made of. A panel is {title, unit, queries: [[expr, legend], ...]};
// rows of panels are laid out from left to right.
{
  // selector stands in each expression for what the variables choose.
  local selector = 'job=~"$job",instance=~"$instance"',
  local datasource = { type: 'prometheus', uid: '$datasource' },

  // expand puts the choice of the variables into every selector: metric{} and metric{a="b"}.
  local expand(expr) = std.strReplace(std.strReplace(expr, '{}', '{' + selector + '}'), '{&', '{' + selector + ','),

  local targets(queries) = [
    { refId: std.char(65 + i), datasource: datasource, expr: expand(queries[i][0]), legendFormat: queries[i][1], range: true }
    for i in std.range(0, std.length(queries) - 1)
  ],

  graph(title, unit, queries, description=''):: {
    type: 'timeseries',
    title: title,
    description: description,
    datasource: datasource,
    targets: targets(queries),
    fieldConfig: {
      defaults: { unit: unit, min: 0, custom: { lineWidth: 1, fillOpacity: 8, showPoints: 'never', spanNulls: false } },
      overrides: [],
    },
    options: { legend: { displayMode: 'list', placement: 'bottom' }, tooltip: { mode: 'multi', sort: 'desc' } },
  },

  stacked(title, unit, queries, description=''):: self.graph(title, unit, queries, description) + {
    fieldConfig+: { defaults+: { custom+: { stacking: { mode: 'normal', group: 'A' }, fillOpacity: 30 } } },
  },

  // good: what is green, warn and bad: from when on it is orange and red.
  stat(title, unit, expr, description='', warn=null, bad=null):: {
    type: 'stat',
    title: title,
    description: description,
    datasource: datasource,
    targets: [t { range: false, instant: true } for t in targets([[expr, '']])],
    fieldConfig: {
      defaults: {
        unit: unit,
        thresholds: {
          mode: 'absolute',
          steps: [{ color: 'green', value: null }]
                 + (if warn == null then [] else [{ color: 'orange', value: warn }])
                 + (if bad == null then [] else [{ color: 'red', value: bad }]),
        },
      },
      overrides: [],
    },
    options: { reduceOptions: { calcs: ['lastNotNull'] }, graphMode: 'none', colorMode: 'value' },
  },

  // latency shows quantiles of a histogram by a label or together.
  latency(title, metric, by='', matchers='{}', description='')::
    local labels = if by == '' then 'le' else 'le, ' + by;
    self.graph(title, 's', [
      ['histogram_quantile(%s, sum by (%s) (rate(%s_bucket%s[$__rate_interval])))' % [q, labels, metric, matchers],
       (if by == '' then '' else '{{%s}} ' % by) + 'p' + std.strReplace(q, '0.', '')]
      for q in ['0.5', '0.9', '0.99']
    ], description),

  row(title, panels):: { title: title, panels: panels },

  // process is what every component has.
  process:: self.row('Process', [
    self.graph('CPU', 'short', [['rate(process_cpu_seconds_total{}[$__rate_interval])', '{{instance}}']], 'Cores in use.'),
    self.graph('Memory', 'bytes', [['process_resident_memory_bytes{}', '{{instance}} resident'], ['go_memstats_heap_inuse_bytes{}', '{{instance}} heap']]),
    self.graph('Goroutines', 'short', [['go_goroutines{}', '{{instance}}']]),
    self.graph('HTTP requests', 'reqps', [['sum by (handler, code) (rate(firnline_server_http_requests_total{}[$__rate_interval]))', '{{handler}} {{code}}']]),
    self.graph('gRPC calls', 'reqps', [['sum by (method, code) (rate(firnline_server_grpc_requests_total{}[$__rate_interval]))', '{{method}} {{code}}']]),
    self.graph('Refused and failed', 'reqps', [
      ['sum by (protocol) (rate(firnline_server_refused_total{}[$__rate_interval]))', 'refused {{protocol}}'],
      ['sum by (protocol) (rate(firnline_server_panics_total{}[$__rate_interval]))', 'panics {{protocol}}'],
    ]),
  ]),

  local variable(name, query, label) = {
    name: name,
    label: label,
    type: 'query',
    datasource: datasource,
    query: { query: query, refId: name },
    refresh: 2,
    includeAll: true,
    multi: true,
    allValue: '.+',
    current: { text: ['All'], value: ['$__all'] },
    sort: 1,
  },

  local layout(rows) =
    local place(acc, row) =
      local perLine = std.min(3, std.max(1, std.length(row.panels)));
      local stats = std.all([p.type == 'stat' for p in row.panels]);
      local columns = if stats then std.length(row.panels) else perLine;
      local height = if stats then 4 else 8;
      local width = std.floor(24 / columns);
      local lines = std.ceil(std.length(row.panels) / columns);
      {
        y: acc.y + 1 + lines * height,
        panels: acc.panels
                + [{ type: 'row', title: row.title, collapsed: false, gridPos: { x: 0, y: acc.y, w: 24, h: 1 }, panels: [] }]
                + [
                  row.panels[i] { gridPos: { x: (i % columns) * width, y: acc.y + 1 + std.floor(i / columns) * height, w: width, h: height } }
                  for i in std.range(0, std.length(row.panels) - 1)
                ],
      };
    local placed = std.foldl(place, rows, { y: 0, panels: [] }).panels;
    [placed[i] { id: i + 1 } for i in std.range(0, std.length(placed) - 1)],

  // dashboard shows processes that have metric.
  dashboard(name, title, metric, rows):: {
    uid: 'firnline-' + name,
    title: 'Firnline / ' + title,
    tags: ['firnline'],
    schemaVersion: 39,
    editable: true,
    graphTooltip: 1,
    refresh: '30s',
    time: { from: 'now-3h', to: 'now' },
    links: [{ type: 'dashboards', title: 'Firnline', tags: ['firnline'], asDropdown: true, includeVars: true, keepTime: true }],
    templating: { list: [
      { name: 'datasource', label: 'Data source', type: 'datasource', query: 'prometheus', current: {} },
      variable('job', 'label_values(%s, job)' % metric, 'Job'),
      variable('instance', 'label_values(%s{job=~"$job"}, instance)' % metric, 'Instance'),
    ] },
    panels: layout(rows),
  },
}

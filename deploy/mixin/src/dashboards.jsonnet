// One file of JSON for each dashboard.
{
  'overview.json': import 'overview.libsonnet',
  'query.json': import 'query.libsonnet',
  'store.json': import 'store.libsonnet',
  'sidecar.json': import 'sidecar.libsonnet',
  'ingest.json': import 'ingest.libsonnet',
  'compact.json': import 'compact.libsonnet',
  'bucket.json': import 'bucket.libsonnet',
}

binary = "../../bin/firnline"

bucket = {
  type   = "S3"
  config = { bucket = "metrics", endpoint = "s3.eu-central-1.amazonaws.com" }
}

flags = {
  query = {
    "query.replica-label" = ["replica", "ingest"]
    "endpoint"            = ["store-1.example:10901", "prometheus-1.example:10901", "prometheus-2.example:10901"]
  }
  store   = { "data-dir" = "/var/lib/firnline/store" }
  sidecar = { "prometheus.url" = "http://localhost:9090", "tsdb.path" = "/var/lib/prometheus" }
  compact = {
    "wait"                        = true
    "data-dir"                    = "/var/lib/firnline/compact"
    "http-address"                = "0.0.0.0:10912"
    "deduplication.replica-label" = ["replica", "ingest"]
    "retention.resolution-raw"    = "30d"
  }
}

machines = {
  prometheus-1 = { address = "prometheus-1.example", components = ["sidecar"] }
  prometheus-2 = { address = "prometheus-2.example", components = ["sidecar"] }
  store-1      = { address = "store-1.example", components = ["store", "compact"] }
  query-1      = { address = "query-1.example", components = ["query"] }
}

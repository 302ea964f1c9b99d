// Package ingest takes samples from those who push them, by remote write and
// OTLP, and holds what it has acknowledged: replicated over a hash ring, in a
// TSDB a tenant, until it is shipped as blocks.
package ingest

package wire

import "github.com/firnline/firnline/pkg/ingest/internal/batch"

type OTLP struct{}

func (r *request) otlpProto(into *batch.Batch, opts *OTLP) error { return nil }
func (r *request) otlpJSON(into *batch.Batch, opts *OTLP) error  { return nil }

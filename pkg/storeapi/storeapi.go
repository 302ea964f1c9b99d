// Package storeapi is the one contract between Firnline's components: a Store
// answers selections with sorted series. The sidecar, the store gateway, the
// ingester, the querier's fan-out and the gRPC client are Stores; the gRPC
// server in this package puts any of them on the wire of Thanos' StoreAPI.
//
// Truths that every Store keeps and every user may rely on:
//
//   - A SeriesSet is sorted by labels.Compare, has each series once, and the
//     chunks of a series by MinTime, then MaxTime.
//   - Times are int64 milliseconds since the epoch. A selection asks for the
//     closed interval [Mint, Maxt].
//   - External labels are part of a series' labels and override labels of the
//     same name that the series had before.
//   - Bytes are counted against a limit before they are fetched.
//
// Generated types (package storepb inside) never leave this package.
package storeapi

import (
	"context"
	"math"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Store answers selections. All methods are safe for concurrent use and stop
// when their context ends.
type Store interface {
	// Info tells what the store holds. It is asked often (every few seconds by
	// each querier) and must be cheap. An error means: not ready.
	Info(ctx context.Context) (Info, error)

	// Series streams the series that match. Close the set in any case.
	// Everything a Store can refuse at once (no matchers, limits) it returns as
	// an error here; what happens on the way comes out of SeriesSet.Err.
	Series(ctx context.Context, sel Selection) (SeriesSet, error)

	// LabelNames returns the sorted names of all labels, external ones
	// included, of the series that match. Selection's chunk fields are unused.
	LabelNames(ctx context.Context, sel Selection) ([]string, Report, error)

	// LabelValues returns the sorted values of the label name of the series
	// that match. An empty name is ErrBadRequest.
	LabelValues(ctx context.Context, name string, sel Selection) ([]string, Report, error)
}

// Info describes what a Store, and the endpoint it stands behind, can be asked.
type Info struct {
	// Component is one of the names in COMPAT A3.1: query, sidecar, store, receive, …
	Component string

	// LabelSets are the external label sets of the data. Empty means unknown:
	// the store matches every selection.
	LabelSets []labels.Labels

	// Mint and Maxt bound the data, in ms. A store with live data says math.MaxInt64.
	Mint, Maxt int64

	// TSDBs are the data sets behind the store, each with its own bounds.
	TSDBs []TSDBInfo

	SupportsSharding             bool // Selection.Shard is applied
	SupportsWithoutReplicaLabels bool // Selection.WithoutReplicaLabels is applied, and the order right after it

	// Services beside Store which the same endpoint answers.
	Services ServiceSet
}

// TSDBInfo is one data set behind a Store: external labels and time range in ms.
type TSDBInfo struct {
	Labels     labels.Labels
	Mint, Maxt int64
}

// ServiceSet says which services an endpoint answers.
type ServiceSet struct {
	Store, Rules, Targets, Metadata, Exemplars, Query, Status bool

	// ExemplarsMint and ExemplarsMaxt bound the exemplars, in ms; valid when Exemplars is set.
	ExemplarsMint, ExemplarsMaxt int64
}

// Selection is what a caller wants of a Store.
type Selection struct {
	Mint, Maxt int64 // closed interval, ms
	Matchers   []*labels.Matcher

	// MaxResolution is the coarsest resolution wanted, in ms: 0 is raw, 300000
	// and 3600000 are the downsampled ones. Aggregates are those wanted of
	// downsampled chunks; raw chunks come whole whatever it says.
	MaxResolution int64
	Aggregates    []Aggregate

	SkipChunks bool // labels only
	Limit      int  // at most so many series, names or values; 0 is no limit

	// WithoutReplicaLabels are removed from the labels before sorting. Series
	// that then are equal become one, with the chunks of both.
	WithoutReplicaLabels []string

	Shard *Shard // nil: all series

	// PartialResponse set: what can't be had becomes a warning in the Report.
	// Unset: it becomes an error.
	PartialResponse bool

	// BlockMatchers restrict the blocks read, by external labels and __block_id.
	BlockMatchers []*labels.Matcher

	Hints Hints
}

// Aggregate names one of the values kept of a downsampled window.
type Aggregate uint8

// The numbers are those of Thanos' StoreAPI (Aggr).
const (
	AggregateRaw     Aggregate = 0
	AggregateCount   Aggregate = 1
	AggregateSum     Aggregate = 2
	AggregateMin     Aggregate = 3
	AggregateMax     Aggregate = 4
	AggregateCounter Aggregate = 5
)

// Hints tell a Store what the selection is for. They never change an answer.
type Hints struct {
	Func        string // innermost PromQL function or aggregation; empty: none
	StepMillis  int64
	RangeMillis int64
	By          bool // Grouping is a "by", not a "without"
	Grouping    []string
}

// SeriesSet is a stream of series. It is used by one goroutine.
type SeriesSet interface {
	// Next moves to the next series and tells whether there is one.
	Next() bool
	// At returns the series Next moved to. The slice of chunks is valid until
	// the next call of Next; labels and chunk data live on.
	At() Series
	// Err returns what ended the set early; nil after its regular end.
	Err() error
	// Report tells what happened on the way. It is complete when Next has returned false.
	Report() Report
	// Close ends all work for the set and waits for it. It can be called more than once.
	Close()
}

// Series is one series of a SeriesSet.
type Series struct {
	Labels labels.Labels
	Chunks []Chunk // by MinTime, then MaxTime; may overlap and reach beyond the selection
}

// Chunk is a run of samples of one series: raw, or the aggregates of a downsampled window.
type Chunk struct {
	MinTime, MaxTime int64 // of the first and last sample, ms

	Raw  Data        // valid when Aggr is nil
	Aggr *Aggregates // nil: a raw chunk

	// Replica tells chunks of different replicas apart once their series have
	// become one: a hash of the labels that Selection.WithoutReplicaLabels took
	// away. 0: not known, as from Thanos' components.
	Replica uint32
}

// Aggregates are the sub-chunks of a downsampled chunk. Those absent or not asked for have no bytes.
type Aggregates struct {
	Count, Sum, Min, Max, Counter Data
}

// Data is an encoded TSDB chunk. Bytes is never written to once it has been handed out.
type Data struct {
	Encoding chunkenc.Encoding // as in the TSDB: 1 XOR … 6 float histogram with start timestamps
	Bytes    []byte            // including the leading sample count, as chunkenc.Chunk.Bytes returns them
}

// Report is what a Store tells beside its answer.
type Report struct {
	Warnings      []string // what is missing and why, each naming its endpoint or block
	QueriedBlocks []ulid.ULID
	Stats         Stats
}

// Add merges other into r.
func (r *Report) Add(other Report) {
	r.Warnings = append(r.Warnings, other.Warnings...)
	r.QueriedBlocks = append(r.QueriedBlocks, other.QueriedBlocks...)
	r.Stats.add(other.Stats)
}

// Stats count the work behind an answer. Sizes are bytes.
type Stats struct {
	BlocksQueried int64

	SeriesMerged, ChunksMerged int64

	PostingsTouched, PostingsTouchedBytes, PostingsFetched, PostingsFetchedBytes, PostingsFetches int64
	SeriesTouched, SeriesTouchedBytes, SeriesFetched, SeriesFetchedBytes, SeriesFetches           int64
	ChunksTouched, ChunksTouchedBytes, ChunksFetched, ChunksFetchedBytes, ChunksFetches           int64

	DownloadedBytes int64
	GetAllNanos     int64
	MergeNanos      int64
}

func (s *Stats) add(o Stats) {
	s.BlocksQueried += o.BlocksQueried
	s.SeriesMerged += o.SeriesMerged
	s.ChunksMerged += o.ChunksMerged
	s.PostingsTouched += o.PostingsTouched
	s.PostingsTouchedBytes += o.PostingsTouchedBytes
	s.PostingsFetched += o.PostingsFetched
	s.PostingsFetchedBytes += o.PostingsFetchedBytes
	s.PostingsFetches += o.PostingsFetches
	s.SeriesTouched += o.SeriesTouched
	s.SeriesTouchedBytes += o.SeriesTouchedBytes
	s.SeriesFetched += o.SeriesFetched
	s.SeriesFetchedBytes += o.SeriesFetchedBytes
	s.SeriesFetches += o.SeriesFetches
	s.ChunksTouched += o.ChunksTouched
	s.ChunksTouchedBytes += o.ChunksTouchedBytes
	s.ChunksFetched += o.ChunksFetched
	s.ChunksFetchedBytes += o.ChunksFetchedBytes
	s.ChunksFetches += o.ChunksFetches
	s.DownloadedBytes += o.DownloadedBytes
	s.GetAllNanos += o.GetAllNanos
	s.MergeNanos += o.MergeNanos
}

// MaxTime is the Maxt of a store that holds live data.
const MaxTime = math.MaxInt64

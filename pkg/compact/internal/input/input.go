// Package input reads blocks out of a bucket from front to back, in ranges of a
// few megabytes, without a copy on disk.
package input

// Label is a label as numbers into a symbol table.
type Label struct{ Name, Value uint32 }

// Chunk is where a chunk lies and the time it spans, ms, both inclusive.
type Chunk struct {
	MinTime, MaxTime int64
	Ref              uint64 // segment<<32 | offset, as in the index
}

// Series is one entry of an index. Its slices are valid until the next one is read.
type Series struct {
	Labels []Label // numbers of the block's own symbols
	Chunks []Chunk
}

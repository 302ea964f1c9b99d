// Package merge turns blocks into others in one pass over them: series side by
// side, chunks that overlap nothing copied as they are, the rest decoded, merged
// and encoded anew, coarser tiers made from the same read.
//
//	symbols of all sources ──► one table, and for each source: its numbers → the table's
//	series of each source ───► walk ──► one series, the chunks of each source
//	                                       │ by replica
//	                                       ▼
//	                                    reader ──► pieces: whole chunks, or merged samples
//	                          one replica │    │ several
//	                                      │    ▼
//	                                      │  deduplication
//	                                      ▼    ▼
//	                                      sink ──► target of the sources' resolution
//	                                        └────► Downsampler ──► targets of 5m, 1h
//
// # Chunks of one replica
//
// Of copies of one chunk (same times, same bytes) one is taken. Chunks that
// overlap, within a block or between blocks, are decoded, merged sample by
// sample, and encoded again with at most 120 samples a chunk; a stretch of
// overlapping chunks of any length takes the memory of those that are open at a
// time. Among samples of the same time the one of the older block (by ULID)
// counts, and within a block that of the chunk that stands first: what was there
// first stays, as in Prometheus' head. (Its compactor takes any of them.) A
// histogram whose predecessor has become another one loses its counter reset
// hint, unless it is a gauge.
//
// # Replicas
//
// The samples of several replicas become those that dedup.New makes of them, and
// so those that a querier would have made. The querier takes a series for a
// counter because of the function asked for; here a series is one if its name
// ends in _total, _sum, _count or _bucket, or if it begins with histograms that
// aren't gauges. What the algorithm returns is compared with the chunks it was
// read from, and a chunk that comes out as it went in is copied. A replica that
// isn't needed for a while isn't read. Penalty begins anew where no chunk reaches
// over and other replicas go on: behind a block that was deduplicated before.
//
// # Downsampled blocks
//
// Aggregate chunks that overlap nothing are copied, and copies of one are one.
// Others are merged window by window, whole stretches at a time: see
// downsample.Merge for what is exact. Which replica a window comes from does not
// depend on Config.Dedup. Plain chunks in a downsampled block, which other
// programs leave there, are downsampled. What is to be cut out goes by windows.
//
// # Bad input
//
// Mended: chunks out of order, overlapping, repeated, empty, with times or order
// that differ from the index. Refused, with an *input.Error that wraps
// block.ErrCorrupt: series or symbols out of order or repeated, wrong checksums,
// unknown encodings, chunks that can't be decoded. A chunk that is copied for a
// target of the sources' resolution alone isn't decoded, and so not looked into.
package merge

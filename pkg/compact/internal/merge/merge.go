// Package merge turns blocks into others in one pass over them: series side by
// side, chunks that overlap nothing copied as they are, the rest decoded, merged
// and encoded anew, coarser tiers made from the same read.
package merge

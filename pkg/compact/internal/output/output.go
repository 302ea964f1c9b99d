// Package output writes blocks: segments of chunks as they come, and an index
// from numbers instead of strings.
package output

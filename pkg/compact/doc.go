// Package compact keeps a bucket small and fast to read: many small blocks
// become few large ones, old ones coarser ones, what is too old or was deleted
// goes. It alone removes blocks.
//
// Work is done by loops that do not wait for one another. Each has its own
// pause, and a longer one after it failed:
//
//	look      what the bucket holds ──► view, and from it the plan (internal/plan, pure)
//	jobs      a job of the plan ─► claim ─► merge ─► upload ─► read back ─► meta.json ─► mark the inputs
//	marking   deletion marks for what others cover and what retention removes
//	cleaning  removes what was marked long ago, partial blocks that were left alone, old claims
//	deletes   closes delete requests that no block needs any more
//	policy    reads the retention policy again when its file changes
//
// What holds at every moment, whatever is killed, paused or run twice:
//
//   - A block gets a deletion mark only when its replacement is visible and has
//     been read back from the bucket, or when the policy says so; and it is
//     removed only a delete delay after that.
//   - Results have ULIDs and bytes that follow from the inputs, so that two
//     workers at one job write the same. A claim (block.Lease) saves work; it is
//     not what keeps data safe.
//   - Age is measured by the bucket's clock. While that and ours differ, or a
//     look at the bucket failed, nothing is marked and nothing removed.
//   - A block that can't be read is set aside. Everything else goes on.
//
// A Compactor's Run or Once is called by one goroutine, once; everything else
// may be called at any time.
package compact

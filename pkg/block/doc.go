// Package block says what a block is and how one gets into, through and out of
// a bucket. It owns meta.json, the marks, the names of objects, the order of
// upload and removal, leases and the shipper. It never chooses blocks to query,
// compact or drop.
//
// What holds for every block in a bucket:
//
//   - A block never changes. It exists when its meta.json can be read: that
//     object is written last (Uploader) and removed first (Delete).
//   - A block is listed as shipped only after it has been read back.
//   - A listing proves that an object is there, never that one is gone
//     (Fetcher).
//   - Age is measured by the bucket's clock (BucketTime).
//
// Every byte this package writes is drawn in docs/formats.md. A Fetcher and a
// Lease are safe for concurrent use; of a Shipper, Status may be called at any
// time, Sync and Run by one goroutine at a time. Functions without a receiver
// are safe for concurrent use.
package block

// Package heads keeps what was written lately: one TSDB a tenant, under
// <--tsdb.path>/<tenant>/. It appends by reference, so that a series it knows
// costs neither labels nor memory, syncs the log before it says so, ships the
// blocks that are cut, and answers storeapi.Services.
//
//	Append ─► table (ID → series of the head) ─► head and log ─► group sync ─► answered
//	            │ unknown: labels of the batch, else the answer says so
//	maintain ─► limits that changed, blocks to cut, idle tenants
//	ship     ─► block.Shipper, a tenant at a time
//	Store    ─► all tenants' heads and blocks, merged; a tenant's alone where the context names one
//
// Truths:
//
//  1. What Append does not name as unknown or refused is in the log, and with
//     --ingest.sync=batched on the disk, when it returns without an error.
//  2. After a write to the log has failed nothing more is acknowledged from
//     that log: a torn record in its middle would take what follows with it.
//     The tenant is read only until its log has been cut and opened anew, and
//     after a failed fsync until the process starts again.
//  3. Nothing of a log is ever removed because it is damaged: it is put aside
//     in <tenant>/damaged/. What the system can't open or read is not damaged (isDamage):
//     it stays as it is, and the tenant is not opened until it can.
//  4. A local block goes when it has been verified in the bucket, and stores
//     have had time to load it.
//
// Locks, in order: Heads.mu, then a head's own. Neither is held during I/O.
package heads

package heads

import (
	"context"
	"path/filepath"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/notes"
)

// notesDirname is where exemplars wait for their block, in a tenant's folder.
const notesDirname = "firnline.notes"

// tenantNotes keep a tenant's exemplars until their blocks are shipped, whether
// or not the TSDB keeps them in memory. A nil one keeps nothing.
type tenantNotes struct {
	head *head
	log  *notes.Log
}

// openNotes opens the log of exemplars. Without a bucket there is nothing to
// keep them for; and if it fails samples are taken and shipped all the same.
func (h *head) openNotes() *tenantNotes {
	if h.heads.bkt == nil {
		return nil
	}
	l, err := notes.OpenLog(filepath.Join(h.dir, notesDirname), h.heads.cfg.Notes, h.heads.notes, h.heads.now())
	if err != nil {
		h.log.Warn("exemplars and metadata are not shipped with blocks", "err", err)
		return nil
	}
	return &tenantNotes{head: h, log: l}
}

func (n *tenantNotes) close() {
	if n == nil {
		return
	}
	if err := n.log.Close(); err != nil {
		n.head.log.Warn("exemplars kept for blocks", "err", err)
	}
}

// heard are the exemplars of one series of a write, in memory of their own.
type heard struct {
	ref  storage.SeriesRef
	list []exemplar.Exemplar
}

// add keeps the exemplars of a write that is in the log.
func (n *tenantNotes) add(all []heard) {
	if n == nil || len(all) == 0 {
		return
	}
	index, err := n.head.db.Head().Index()
	if err != nil {
		return // the head is being closed
	}
	defer index.Close()
	var lset labels.ScratchBuilder
	list := make([]notes.Series, 0, len(all))
	for _, h := range all {
		if index.Series(h.ref, &lset, nil) == nil { // else it has gone meanwhile
			list = append(list, notes.Series{Labels: lset.Labels(), Exemplars: h.list})
		}
	}
	_ = n.log.Add(list) // counted; the samples are safe
}

// send sends the note on a block. It is block.ShipperParts.Notes.
func (n *tenantNotes) send(ctx context.Context, m *block.Meta) error {
	if n == nil {
		return nil
	}
	var families []notes.Family
	n.head.families.each("", func(name string, list []metadata.Metadata) {
		for _, one := range list {
			families = append(families, notes.Family{Name: name, Type: string(one.Type), Help: one.Help, Unit: one.Unit})
		}
	})
	now := n.head.heads.now()
	if err := n.log.Mention(families, now); err != nil {
		return err
	}
	if err := n.log.Forget(now); err != nil {
		n.head.log.Warn("old exemplars stay on disk", "err", err)
	}
	return notes.Upload(ctx, n.head.heads.bkt, m.ULID, n.log.Cut(m.MinTime, m.MaxTime))
}

// fits tells whether the labels of an exemplar are as short as the exposition
// format asks, which the TSDB looks at where it keeps exemplars itself.
func fits(e exemplar.Exemplar) bool {
	runes := 0
	e.Labels.Range(func(l labels.Label) { runes += utf8.RuneCountInString(l.Name) + utf8.RuneCountInString(l.Value) })
	return runes <= exemplar.ExemplarMaxLabelSetLength
}

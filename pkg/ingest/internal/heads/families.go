package heads

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

// families are a tenant's metric families and what senders say about them. The
// TSDB's log would keep that a series, and has no way to ask for it; a file
// beside it is kept instead, written when something has changed.
type families struct {
	path    string
	most    int
	dropped prometheus.Counter

	mu struct {
		sync.RWMutex
		byName  map[string][]metadata.Metadata
		changed bool
	}
}

const (
	familiesFilename = "firnline.metadata.json"
	familiesVersion  = 1
	// mostMeanings is how many different things senders may say about one metric.
	mostMeanings = 4
)

// familiesFile is what is on disk.
type familiesFile struct {
	Version  int                        `json:"version"`
	Families map[string][]familyMeaning `json:"families"`
}

type familyMeaning struct {
	Type model.MetricType `json:"type"`
	Help string           `json:"help"`
	Unit string           `json:"unit"`
}

// openFamilies reads what was kept. A file that can't be read is as good as
// none: senders repeat what it held.
func openFamilies(dir string, most int, dropped prometheus.Counter) (*families, error) {
	f := &families{path: filepath.Join(dir, familiesFilename), most: most, dropped: dropped}
	f.mu.byName = map[string][]metadata.Metadata{}
	data, err := os.ReadFile(f.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read metadata: %w", err)
	}
	var on familiesFile
	if json.Unmarshal(data, &on) != nil || on.Version != familiesVersion {
		return f, nil //nolint:nilerr // see above
	}
	for name, list := range on.Families {
		for _, m := range list {
			f.mu.byName[name] = append(f.mu.byName[name], metadata.Metadata{Type: m.Type, Help: m.Help, Unit: m.Unit})
		}
	}
	return f, nil
}

// add keeps what a batch says. What is known already costs a look.
func (f *families) add(in []batch.Family) {
	for i := range in {
		if f.known(&in[i]) {
			continue
		}
		f.learn(&in[i])
	}
}

func (f *families) known(fam *batch.Family) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return slices.Contains(f.mu.byName[fam.Name], fam.Metadata)
}

// learn keeps a family, in memory of its own.
func (f *families) learn(fam *batch.Family) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list, known := f.mu.byName[fam.Name]
	if !known && len(f.mu.byName) >= f.most {
		f.dropped.Inc()
		return
	}
	m := metadata.Metadata{Type: model.MetricType(strings.Clone(string(fam.Type))), Help: strings.Clone(fam.Help), Unit: strings.Clone(fam.Unit)}
	if len(list) >= mostMeanings {
		list = list[len(list)-mostMeanings+1:]
	}
	// A new list: readers may hold the old one.
	f.mu.byName[strings.Clone(fam.Name)] = append(slices.Clone(list), m)
	f.mu.changed = true
}

// each calls do for every family, or for one metric's if that is not empty.
func (f *families) each(metric string, do func(name string, list []metadata.Metadata)) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if metric != "" {
		if list, ok := f.mu.byName[metric]; ok {
			do(metric, list)
		}
		return
	}
	for name, list := range f.mu.byName {
		do(name, list)
	}
}

// save writes the file if anything has changed.
func (f *families) save() error {
	f.mu.Lock()
	changed := f.mu.changed
	out := familiesFile{Version: familiesVersion, Families: make(map[string][]familyMeaning, len(f.mu.byName))}
	if changed {
		for name, list := range f.mu.byName {
			for _, m := range list {
				out.Families[name] = append(out.Families[name], familyMeaning{Type: m.Type, Help: m.Help, Unit: m.Unit})
			}
		}
	}
	f.mu.changed = false
	f.mu.Unlock()
	if !changed {
		return nil
	}
	data, err := json.Marshal(out)
	if err == nil {
		err = block.WriteFile(f.path, data)
	}
	if err != nil {
		f.mu.Lock()
		f.mu.changed = true
		f.mu.Unlock()
		return fmt.Errorf("save metadata: %w", err)
	}
	return nil
}

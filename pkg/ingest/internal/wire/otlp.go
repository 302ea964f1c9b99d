package wire

import (
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
)

// OTLP is how a tenant's OTLP metrics become series. The names are those of
// Prometheus' own configuration where it has them.
type OTLP struct {
	PromoteAllResourceAttributes         bool           `yaml:"promote_all_resource_attributes" doc:"Make labels of all resource attributes."`
	PromoteResourceAttributes            []string       `yaml:"promote_resource_attributes" doc:"Make labels of these resource attributes."`
	IgnoreResourceAttributes             []string       `yaml:"ignore_resource_attributes" doc:"Make none of these, with promote_all_resource_attributes."`
	KeepIdentifyingResourceAttributes    bool           `yaml:"keep_identifying_resource_attributes" doc:"Keep service.name, service.namespace and service.instance.id in target_info, too."`
	TranslationStrategy                  string         `yaml:"translation_strategy" doc:"How names are written: UnderscoreEscapingWithSuffixes, UnderscoreEscapingWithoutSuffixes, NoUTF8EscapingWithSuffixes or NoTranslation."`
	ConvertHistogramsToNHCB              bool           `yaml:"convert_histograms_to_nhcb" doc:"Store histograms with explicit buckets as native histograms with custom buckets."`
	PromoteScopeMetadata                 bool           `yaml:"promote_scope_metadata" doc:"Make labels of name, version, schema URL and attributes of the scope, beginning with otel_scope_."`
	LabelNameUnderscoreSanitization      bool           `yaml:"label_name_underscore_sanitization" doc:"Put key before label names that begin with an underscore."`
	LabelNamePreserveMultipleUnderscores bool           `yaml:"label_name_preserve_multiple_underscores" doc:"Keep several underscores in a row in label names."`
	Namespace                            string         `yaml:"namespace" doc:"Begin names of metrics with this and an underscore."`
	ExternalLabels                       externalLabels `yaml:"external_labels" doc:"Labels that every series gets: name to value."`
	TypeAndUnitLabels                    bool           `yaml:"type_and_unit_labels" doc:"Add the labels __type__ and __unit__."`
	TargetInfo                           bool           `yaml:"target_info" doc:"Write target_info, which has the resource attributes that are no labels."`
	LookbackDelta                        model.Duration `yaml:"lookback_delta" doc:"target_info has a sample at every half of this time. What queriers have as --query.lookback-delta."`
	DeltaToCumulative                    bool           `yaml:"delta_to_cumulative" doc:"Sum delta points up to cumulative series. Each stream must always come to the same process."`
	NativeDelta                          bool           `yaml:"native_delta" doc:"Store delta points as they come."`
}

// DefaultOTLP is what Prometheus does if nothing is configured.
func DefaultOTLP() OTLP {
	return OTLP{
		TranslationStrategy:                  string(otlptranslator.UnderscoreEscapingWithSuffixes),
		LabelNameUnderscoreSanitization:      true,
		LabelNamePreserveMultipleUnderscores: true,
		TargetInfo:                           true,
		LookbackDelta:                        model.Duration(5 * time.Minute),
	}
}

// externalLabels are added to series.
type externalLabels map[string]string

func (l externalLabels) validate() error {
	for name, value := range l {
		if !model.UTF8Validation.IsValidLabelName(name) || strings.HasPrefix(name, model.ReservedLabelPrefix) {
			return fmt.Errorf("%q is no name of a label", name)
		}
		if value == "" || !utf8.ValidString(value) {
			return fmt.Errorf("%s: %q is no value of a label", name, value)
		}
	}
	return nil
}

// Validate checks what an operator has set.
func (o *OTLP) Validate() error {
	strategies := []otlptranslator.TranslationStrategyOption{
		otlptranslator.UnderscoreEscapingWithSuffixes, otlptranslator.UnderscoreEscapingWithoutSuffixes,
		otlptranslator.NoUTF8EscapingWithSuffixes, otlptranslator.NoTranslation,
	}
	switch {
	case !slices.Contains(strategies, otlptranslator.TranslationStrategyOption(o.TranslationStrategy)):
		return fmt.Errorf("translation_strategy %q is none of %v", o.TranslationStrategy, strategies)
	case o.PromoteAllResourceAttributes && len(o.PromoteResourceAttributes) > 0:
		return errors.New("promote_resource_attributes has no use with promote_all_resource_attributes")
	case !o.PromoteAllResourceAttributes && len(o.IgnoreResourceAttributes) > 0:
		return errors.New("ignore_resource_attributes has a use with promote_all_resource_attributes only")
	case o.DeltaToCumulative && o.NativeDelta:
		return errors.New("delta_to_cumulative and native_delta exclude each other")
	case o.LookbackDelta <= 0:
		return errors.New("lookback_delta must be above 0")
	}
	if err := o.ExternalLabels.validate(); err != nil {
		return fmt.Errorf("external_labels: %w", err)
	}
	if o.Namespace != "" && !model.LegacyValidation.IsValidMetricName(o.Namespace) {
		return fmt.Errorf("namespace %q can't begin the name of a metric", o.Namespace)
	}
	attributes := slices.Concat(o.PromoteResourceAttributes, o.IgnoreResourceAttributes)
	for i, a := range attributes {
		if strings.TrimSpace(a) == "" || slices.Contains(attributes[:i], a) {
			return fmt.Errorf("resource attribute %q is empty or listed twice", a)
		}
	}
	return nil
}

// settings is what Prometheus' library calls them. target_info is left to us.
func (o *OTLP) settings() prometheusremotewrite.Settings {
	strategy := otlptranslator.TranslationStrategyOption(o.TranslationStrategy)
	return prometheusremotewrite.Settings{
		DisableTargetInfo: true,
		Namespace:         o.Namespace,
		ExternalLabels:    o.ExternalLabels,
		AddMetricSuffixes: strategy.ShouldAddSuffixes(),
		AllowUTF8:         !strategy.ShouldEscape(),
		PromoteResourceAttributes: prometheusremotewrite.NewPromoteResourceAttributes(config.OTLPConfig{
			PromoteAllResourceAttributes: o.PromoteAllResourceAttributes,
			PromoteResourceAttributes:    o.PromoteResourceAttributes,
			IgnoreResourceAttributes:     o.IgnoreResourceAttributes,
		}),
		KeepIdentifyingResourceAttributes:    o.KeepIdentifyingResourceAttributes,
		ConvertHistogramsToNHCB:              o.ConvertHistogramsToNHCB,
		AllowDeltaTemporality:                o.NativeDelta,
		PromoteScopeMetadata:                 o.PromoteScopeMetadata,
		EnableTypeAndUnitLabels:              o.TypeAndUnitLabels,
		LabelNameUnderscoreSanitization:      o.LabelNameUnderscoreSanitization,
		LabelNamePreserveMultipleUnderscores: o.LabelNamePreserveMultipleUnderscores,
	}
}

// translation is what is prepared once for equal options: settings, and what
// the library made of metrics and resources that come again and again.
type translation struct {
	opts     OTLP
	settings prometheusremotewrite.Settings
	// mark is part of all Keys, so that other options make other series of the same bytes.
	mark [8]byte
	// targetInfo is the name that target_info has.
	targetInfo string
	families   recent[family]
	targets    recent[target]
}

// keptTranslations bounds how many different options are prepared at a time:
// tenants mostly share one.
const keptTranslations = 64

// What a translation remembers lately: of a metric some 200 bytes, of a resource 50.
const (
	keptFamilies = 20_000
	keptTargets  = 200_000
)

// translation finds or prepares what belongs to opts.
func (d *Decoder) translation(opts OTLP) *translation {
	if known := d.translations.Load(); known != nil {
		for _, t := range *known {
			if reflect.DeepEqual(t.opts, opts) {
				return t
			}
		}
	}
	t := &translation{opts: opts, settings: opts.settings(), targetInfo: targetInfo}
	if opts.Namespace != "" {
		t.targetInfo = opts.Namespace + "_" + targetInfo
	}
	t.families.most, t.targets.most = keptFamilies, keptTargets
	t.opts.PromoteResourceAttributes, t.opts.IgnoreResourceAttributes = slices.Clone(opts.PromoteResourceAttributes), slices.Clone(opts.IgnoreResourceAttributes)
	t.opts.ExternalLabels = maps.Clone(opts.ExternalLabels)
	sum := maphash.String(d.hi, fmt.Sprintf("%+v", opts))
	for i := range t.mark {
		t.mark[i] = byte(sum >> (8 * i))
	}
	list := []*translation{t}
	if known := d.translations.Load(); known != nil {
		list = append(list, (*known)[:min(len(*known), keptTranslations-1)]...)
	}
	d.translations.Store(&list)
	return t
}

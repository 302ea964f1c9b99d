package storeapi

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/firnline/firnline/pkg/storeapi/storepb"
)

func fromTime(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }

// toTime is the zero time where the message has none, or one that can't be written as JSON.
func toTime(t *timestamppb.Timestamp) time.Time {
	if !t.IsValid() {
		return time.Time{}
	}
	return t.AsTime()
}

func fromRulesRequest(req RulesRequest, partial bool) *storepb.RulesRequest {
	out := &storepb.RulesRequest{
		Type: storepb.RulesRequest_Type(req.Type), PartialResponseStrategy: strategy(partial),
		RuleName: req.Names, RuleGroup: req.Groups, File: req.Files,
	}
	for _, set := range req.Matchers {
		out.MatcherString = append(out.MatcherString, selector(set))
	}
	return out
}

// selector writes matchers as PromQL has them.
func selector(ms []*labels.Matcher) string {
	parts := make([]string, len(ms))
	for i, m := range ms {
		parts[i] = m.String()
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func toRulesRequest(req *storepb.RulesRequest) (RulesRequest, error) {
	if req.Type < storepb.RulesRequest_ALL || req.Type > storepb.RulesRequest_RECORD {
		return RulesRequest{}, fmt.Errorf("%w: rule type %d is unknown", ErrBadRequest, req.Type)
	}
	out := RulesRequest{Type: RuleType(req.Type), Names: req.RuleName, Groups: req.RuleGroup, Files: req.File}
	p := parser.NewParser(parser.Options{})
	for _, s := range req.MatcherString {
		ms, err := p.ParseMetricSelector(s)
		if err != nil {
			return out, fmt.Errorf("%w: matcher %q: %w", ErrBadRequest, s, err)
		}
		out.Matchers = append(out.Matchers, ms)
	}
	return out, nil
}

func fromRuleGroup(g RuleGroup) *storepb.RuleGroup {
	out := &storepb.RuleGroup{
		Name: g.Name, File: g.File, Interval: g.Interval, EvaluationDurationSeconds: g.EvaluationTime,
		LastEvaluation: fromTime(g.LastEvaluation), Limit: g.Limit, PartialResponseStrategy: fromStrategyName(g.PartialResponseStrategy),
	}
	for _, r := range g.Rules {
		out.Rules = append(out.Rules, fromRule(r))
	}
	return out
}

func toRuleGroup(g *storepb.RuleGroup) RuleGroup {
	out := RuleGroup{
		Name: g.Name, File: g.File, Interval: g.Interval, EvaluationTime: g.EvaluationDurationSeconds,
		LastEvaluation: toTime(g.LastEvaluation), Limit: g.Limit, PartialResponseStrategy: g.PartialResponseStrategy.String(),
		Rules: []Rule{},
	}
	for _, r := range g.Rules {
		switch r := r.Result.(type) {
		case *storepb.Rule_Recording:
			out.Rules = append(out.Rules, toRecordingRule(r.Recording))
		case *storepb.Rule_Alert:
			out.Rules = append(out.Rules, toAlertingRule(r.Alert))
		}
	}
	return out
}

func fromRule(r Rule) *storepb.Rule {
	if r.Type == "recording" {
		return &storepb.Rule{Result: &storepb.Rule_Recording{Recording: &storepb.RecordingRule{
			Name: r.Name, Query: r.Query, Labels: fromLabelSet(r.Labels), Health: r.Health, LastError: r.LastError,
			EvaluationDurationSeconds: r.EvaluationTime, LastEvaluation: fromTime(r.LastEvaluation),
		}}}
	}
	a := &storepb.Alert{
		State: fromAlertState(r.State), Name: r.Name, Query: r.Query, DurationSeconds: r.Duration, KeepFiringForSeconds: r.KeepFiringFor,
		Labels: fromLabelSet(r.Labels), Annotations: fromLabelSet(r.Annotations), Health: r.Health, LastError: r.LastError,
		EvaluationDurationSeconds: r.EvaluationTime, LastEvaluation: fromTime(r.LastEvaluation),
	}
	for _, i := range r.Alerts {
		alert := &storepb.AlertInstance{
			Labels: fromLabelSet(i.Labels), Annotations: fromLabelSet(i.Annotations), State: fromAlertState(i.State),
			Value: i.Value, PartialResponseStrategy: fromStrategyName(i.PartialResponseStrategy),
		}
		if i.ActiveAt != nil {
			alert.ActiveAt = fromTime(*i.ActiveAt)
		}
		a.Alerts = append(a.Alerts, alert)
	}
	return &storepb.Rule{Result: &storepb.Rule_Alert{Alert: a}}
}

func toRecordingRule(r *storepb.RecordingRule) Rule {
	return Rule{
		Type: "recording", Name: r.Name, Query: r.Query, Labels: toLabels(r.Labels.GetLabels()), Health: r.Health, LastError: r.LastError,
		EvaluationTime: r.EvaluationDurationSeconds, LastEvaluation: toTime(r.LastEvaluation),
	}
}

func toAlertingRule(r *storepb.Alert) Rule {
	out := Rule{
		Type: "alerting", Name: r.Name, Query: r.Query, Labels: toLabels(r.Labels.GetLabels()), Health: r.Health, LastError: r.LastError,
		EvaluationTime: r.EvaluationDurationSeconds, LastEvaluation: toTime(r.LastEvaluation),
		State: toAlertState(r.State), Duration: r.DurationSeconds, KeepFiringFor: r.KeepFiringForSeconds,
		Annotations: toLabels(r.Annotations.GetLabels()), Alerts: []Alert{},
	}
	for _, i := range r.Alerts {
		alert := Alert{
			Labels: toLabels(i.Labels.GetLabels()), Annotations: toLabels(i.Annotations.GetLabels()), State: toAlertState(i.State),
			Value: i.Value, PartialResponseStrategy: i.PartialResponseStrategy.String(),
		}
		if i.ActiveAt != nil {
			t := toTime(i.ActiveAt)
			alert.ActiveAt = &t
		}
		out.Alerts = append(out.Alerts, alert)
	}
	return out
}

// Alert states have the names of the HTTP API: unknown, inactive, pending, firing.
const alertPrefix = "ALERT_"

func fromAlertState(s string) storepb.AlertState {
	return storepb.AlertState(storepb.AlertState_value[alertPrefix+strings.ToUpper(s)])
}

func toAlertState(s storepb.AlertState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), alertPrefix))
}

// fromStrategyName takes WARN and ABORT in any case; others are WARN.
func fromStrategyName(s string) storepb.PartialResponseStrategy {
	return storepb.PartialResponseStrategy(storepb.PartialResponseStrategy_value[strings.ToUpper(s)])
}

package api

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/storeapi"
)

// rulesData is what rules answers with, in the order of Prometheus' fields.
type rulesData struct {
	Groups    []ruleGroup `json:"groups"`
	NextToken string      `json:"groupNextToken,omitempty"`
}

type ruleGroup struct {
	Name            string    `json:"name"`
	File            string    `json:"file"`
	Rules           []any     `json:"rules"` // alertingRule or recordingRule
	Interval        float64   `json:"interval"`
	Limit           int64     `json:"limit"`
	EvaluationTime  float64   `json:"evaluationTime"`
	LastEvaluation  time.Time `json:"lastEvaluation"`
	PartialResponse string    `json:"partialResponseStrategy,omitempty"`
}

type alertingRule struct {
	State          string           `json:"state"`
	Name           string           `json:"name"`
	Query          string           `json:"query"`
	Duration       float64          `json:"duration"`
	KeepFiringFor  float64          `json:"keepFiringFor"`
	Labels         labels.Labels    `json:"labels"`
	Annotations    labels.Labels    `json:"annotations"`
	Alerts         []storeapi.Alert `json:"alerts"`
	Health         string           `json:"health"`
	LastError      string           `json:"lastError,omitempty"`
	EvaluationTime float64          `json:"evaluationTime"`
	LastEvaluation time.Time        `json:"lastEvaluation"`
	Type           string           `json:"type"`
}

type recordingRule struct {
	Name           string        `json:"name"`
	Query          string        `json:"query"`
	Labels         labels.Labels `json:"labels"`
	Health         string        `json:"health"`
	LastError      string        `json:"lastError,omitempty"`
	EvaluationTime float64       `json:"evaluationTime"`
	LastEvaluation time.Time     `json:"lastEvaluation"`
	Type           string        `json:"type"`
}

// page is which groups of all that are left after filtering are wanted.
type page struct {
	size int    // 0: all
	from string // token of the first group; empty: the first
}

// rules lists rules by group.
func (a *API) rules(r *http.Request) (answer, error) {
	req, err := a.rulesParams(r)
	if err != nil {
		return answer{}, err
	}
	noAlerts, err := excludeParam(r)
	if err != nil {
		return answer{}, err
	}
	pg, err := pageParams(r)
	if err != nil {
		return answer{}, err
	}
	groups, warn, err := a.ruleGroups(r, req)
	if err != nil {
		return answer{}, err
	}
	kept, next, err := pg.of(groups)
	if err != nil {
		return answer{}, err
	}
	data := rulesData{Groups: make([]ruleGroup, 0, len(kept)), NextToken: next}
	for _, g := range kept {
		data.Groups = append(data.Groups, groupData(g, noAlerts))
	}
	return answer{data: data, warn: warn}, nil
}

// alerts lists the alerts of all rules that have some.
func (a *API) alerts(r *http.Request) (answer, error) {
	groups, warn, err := a.ruleGroups(r, storeapi.RulesRequest{Type: storeapi.RulesAlerting})
	if err != nil {
		return answer{}, err
	}
	alerts := []storeapi.Alert{}
	for _, g := range groups {
		for _, rule := range g.Rules {
			alerts = append(alerts, rule.Alerts...)
		}
	}
	return answer{data: map[string]any{"alerts": alerts}, warn: warn}, nil
}

func (a *API) rulesParams(r *http.Request) (storeapi.RulesRequest, error) {
	req := storeapi.RulesRequest{Names: r.Form["rule_name[]"], Groups: r.Form["rule_group[]"], Files: r.Form["file[]"]}
	var err error
	if req.Matchers, err = a.matchParam(r); err != nil {
		return req, bad("%w", err)
	}
	switch s := strings.ToLower(r.Form.Get("type")); s {
	case "":
		req.Type = storeapi.RulesAll
	case "alert":
		req.Type = storeapi.RulesAlerting
	case "record":
		req.Type = storeapi.RulesRecording
	default:
		return req, badParam("type", fmt.Errorf("not supported value %q", s))
	}
	return req, nil
}

func excludeParam(r *http.Request) (bool, error) {
	s := strings.ToLower(r.Form.Get("exclude_alerts"))
	if s == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, badParam("exclude_alerts", fmt.Errorf("error converting exclude_alerts: %w", err))
	}
	return b, nil
}

func pageParams(r *http.Request) (page, error) {
	limit, token := r.Form.Get("group_limit"), r.Form.Get("group_next_token")
	if limit == "" {
		if token != "" {
			return page{}, badParam("group_next_token", errors.New("group_limit needs to be present in order to paginate over the groups"))
		}
		return page{}, nil
	}
	n, err := strconv.ParseInt(limit, 10, 32)
	if err != nil {
		return page{}, badParam("group_limit", fmt.Errorf("group_limit needs to be a valid number: %w", err))
	}
	if n <= 0 {
		return page{}, badParam("group_limit", errors.New("group_limit needs to be greater than 0"))
	}
	return page{size: int(n), from: token}, nil
}

// ruleGroups asks for groups and puts them in an order that pages can rely on.
// Endpoints of older versions leave filters aside, so they are applied here again.
func (a *API) ruleGroups(r *http.Request, req storeapi.RulesRequest) ([]storeapi.RuleGroup, []string, error) {
	partial, err := boolParam(r, "partial_response", a.cfg.RulePartial)
	if err != nil || a.parts.Rules == nil {
		return nil, nil, err
	}
	groups, warn, err := a.parts.Rules.Rules(r.Context(), req, partial)
	if err != nil {
		return nil, nil, err
	}
	groups = filterGroups(groups, req)
	slices.SortStableFunc(groups, func(x, y storeapi.RuleGroup) int {
		return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Name, y.Name))
	})
	return groups, warn, nil
}

// filterGroups keeps the rules that a request wants, and the groups that still have some.
func filterGroups(groups []storeapi.RuleGroup, req storeapi.RulesRequest) []storeapi.RuleGroup {
	var out []storeapi.RuleGroup
	for _, g := range groups {
		if !among(req.Groups, g.Name) || !among(req.Files, g.File) {
			continue
		}
		var rules []storeapi.Rule
		for _, rule := range g.Rules {
			if wanted(rule, req) {
				rules = append(rules, rule)
			}
		}
		if g.Rules = rules; len(rules) > 0 {
			out = append(out, g)
		}
	}
	return out
}

func wanted(rule storeapi.Rule, req storeapi.RulesRequest) bool {
	recording := rule.Type == "recording"
	if req.Type == storeapi.RulesAlerting && recording || req.Type == storeapi.RulesRecording && !recording {
		return false
	}
	return among(req.Names, rule.Name) && (len(req.Matchers) == 0 || slices.ContainsFunc(req.Matchers, func(set []*labels.Matcher) bool {
		return matches(rule.Labels, set)
	}))
}

// matches tells whether the labels match. A label made by a template is not
// known until the rule fires, so it matches nothing.
func matches(lset labels.Labels, set []*labels.Matcher) bool {
	for _, m := range set {
		v := lset.Get(m.Name)
		if strings.Contains(v, "{{") || !m.Matches(v) {
			return false
		}
	}
	return true
}

// among tells whether a list has a text, or is empty.
func among(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }

// of returns the groups of the page, and the token of the next one.
func (p page) of(groups []storeapi.RuleGroup) ([]storeapi.RuleGroup, string, error) {
	if p.size == 0 {
		return groups, "", nil
	}
	if p.from != "" {
		at := slices.IndexFunc(groups, func(g storeapi.RuleGroup) bool { return token(g) == p.from })
		if at < 0 {
			return nil, "", badParam("group_next_token", fmt.Errorf("invalid group_next_token '%s'. were rule groups changed?", p.from))
		}
		groups = groups[at:]
	}
	if len(groups) <= p.size {
		return groups, "", nil
	}
	return groups[:p.size], token(groups[p.size]), nil
}

// token names a group for the next page: the SHA-256 of file and name.
func token(g storeapi.RuleGroup) string {
	sum := sha256.Sum256([]byte(g.File + ";" + g.Name))
	return hex.EncodeToString(sum[:])
}

func groupData(g storeapi.RuleGroup, noAlerts bool) ruleGroup {
	out := ruleGroup{
		Name: g.Name, File: g.File, Rules: make([]any, 0, len(g.Rules)), Interval: g.Interval, Limit: g.Limit,
		EvaluationTime: g.EvaluationTime, LastEvaluation: g.LastEvaluation, PartialResponse: g.PartialResponseStrategy,
	}
	for _, r := range g.Rules {
		if r.Type == "recording" {
			out.Rules = append(out.Rules, recordingRule{
				Name: r.Name, Query: r.Query, Labels: r.Labels, Health: r.Health, LastError: r.LastError,
				EvaluationTime: r.EvaluationTime, LastEvaluation: r.LastEvaluation, Type: r.Type,
			})
			continue
		}
		if noAlerts || r.Alerts == nil {
			r.Alerts = []storeapi.Alert{}
		}
		out.Rules = append(out.Rules, alertingRule{
			State: r.State, Name: r.Name, Query: r.Query, Duration: r.Duration, KeepFiringFor: r.KeepFiringFor,
			Labels: r.Labels, Annotations: r.Annotations, Alerts: r.Alerts, Health: r.Health, LastError: r.LastError,
			EvaluationTime: r.EvaluationTime, LastEvaluation: r.LastEvaluation, Type: r.Type,
		})
	}
	return out
}

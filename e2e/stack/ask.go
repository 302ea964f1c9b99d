package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Answer is the body of an answer of the Prometheus HTTP API.
type Answer struct {
	HTTPStatus int             `json:"-"`
	Status     string          `json:"status"`
	Data       json.RawMessage `json:"data"`
	ErrorType  string          `json:"errorType"`
	Error      string          `json:"error"`
	Warnings   []string        `json:"warnings"`
	Infos      []string        `json:"infos"`
}

// Result is the data of a query's answer.
type Result struct {
	Type   string `json:"resultType"`
	Result []struct {
		Metric     map[string]string `json:"metric"`
		Value      [2]any            `json:"value"`
		Values     [][2]any          `json:"values"`
		Histogram  json.RawMessage   `json:"histogram"`
		Histograms []json.RawMessage `json:"histograms"`
	} `json:"result"`
}

// Ask sends a request to an HTTP API of Prometheus' kind: path is "query",
// "labels" and so on. An answer with an error is not an error here.
func Ask(ctx context.Context, base, path string, params url.Values) (*Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+"/api/v1/"+path+"?"+params.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	a := &Answer{HTTPStatus: resp.StatusCode}
	if err := json.Unmarshal(body, a); err != nil {
		return nil, fmt.Errorf("%s answered %s, which is no JSON: %.200s", path, resp.Status, body)
	}
	return a, nil
}

// Result decodes the data of a query's answer.
func (a *Answer) Result() (Result, error) {
	var r Result
	if a.Status != "success" {
		return r, fmt.Errorf("%s: %s", a.ErrorType, a.Error)
	}
	return r, json.Unmarshal(a.Data, &r)
}

package api

import "net/http"

// formatQuery answers with the expression, laid out for reading.
func (a *API) formatQuery(r *http.Request) (answer, error) {
	expr, err := a.parser.ParseExpr(r.Form.Get("query"))
	if err != nil {
		return answer{}, badParam("query", err)
	}
	return answer{data: expr.Pretty(0)}, nil
}

// parseQuery answers with the expression as a tree.
func (a *API) parseQuery(r *http.Request) (answer, error) {
	expr, err := a.parser.ParseExpr(r.Form.Get("query"))
	if err != nil {
		return answer{}, badParam("query", err)
	}
	return answer{data: tree(expr)}, nil
}

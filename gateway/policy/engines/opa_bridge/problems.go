package main

import (
	"encoding/json"
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// problem is one thing that is wrong, with its place: rows and columns count from 1, 0 is unknown.
type problem struct {
	Code    string   `json:"code"`
	Message string   `json:"message"`
	File    string   `json:"file"`
	Row     int      `json:"row"`
	Column  int      `json:"column"`
	Width   int      `json:"width"`
	Name    string   `json:"name,omitempty"`  // what is misspelt or unused
	Known   []string `json:"known,omitempty"` // what could have been meant
	Details []string `json:"details,omitempty"`
}

type failedOperation struct {
	Problems []problem `json:"problems"`
}

func problems(of ...problem) failedOperation { return failedOperation{Problems: of} }

// at puts the place of `location` into the problem.
func (p problem) at(location *ast.Location) problem {
	if location != nil {
		p.File, p.Row, p.Column, p.Width = location.File, location.Row, location.Col, 0
		for p.Width < len(location.Text) && location.Text[p.Width] != '\n' {
			p.Width++
		}
	}
	return p
}

// problemsOf is every problem that an error of OPA carries.
func problemsOf(err error) failedOperation {
	var found []problem
	collect(err, &found)
	return problems(found...)
}

func collect(err error, into *[]problem) {
	var many ast.Errors
	var static *ast.Error
	var dynamic *topdown.Error
	switch {
	case errors.As(err, &dynamic): // a builtin's error may carry the static errors of a module that it parsed
		*into = append(*into, problem{Code: dynamic.Code, Message: dynamic.Message}.at(dynamic.Location))
	case errors.As(err, &many):
		for _, each := range many {
			*into = append(*into, staticProblem(each))
		}
	case errors.As(err, &static):
		*into = append(*into, staticProblem(static))
	default:
		*into = append(*into, problem{Code: "bridge_error", Message: err.Error()})
	}
}

func staticProblem(err *ast.Error) problem {
	found := problem{Code: err.Code, Message: err.Message}.at(err.Location)
	if err.Details == nil {
		return found
	}
	found.Details = err.Details.Lines()
	if detail, ok := err.Details.(*ast.RefErrInvalidDetail); ok {
		found.Name = plain(detail.Ref[detail.Pos].Value)
		if place := detail.Ref[detail.Pos].Location; place != nil && place.Row == found.Row {
			found = found.at(place)
		}
		for _, value := range detail.OneOf {
			found.Known = append(found.Known, plain(value))
		}
	}
	return found
}

// plain is a name without quotes.
func plain(value ast.Value) string {
	if text, ok := value.(ast.String); ok {
		return string(text)
	}
	return value.String()
}

func failure(of problem) []byte {
	text, _ := json.Marshal(of)
	return append([]byte{failed}, text...)
}

package main

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// objections are the sets of the entry point's package whose members say no.
var objections = []string{"blocks", "challenges", "reverifications"}

// openObject is the part of the input whose members no schema knows: a device reports what it can.
var openObject = ast.MustParseRef("input.device.posture")

// silentOnMissing is every member of a device's posture that an objection asks for in such a manner that it says nothing
// where the member is missing (unreported_posture): undefined is neither true nor false, so the rule does not object. A
// member that another objection misses (`not encrypted`) is looked after.
func (p *policy) silentOnMissing() []problem {
	finder := &missingFinder{p: p, silent: map[string]*ast.Location{}, heeded: map[string]bool{}, seen: map[visited]bool{}}
	own := p.entry[:len(p.entry)-1]
	for _, name := range objections {
		for _, rule := range p.compiler.GetRulesWithPrefix(own.Append(ast.StringTerm(name))) {
			finder.rule(rule, true)
		}
	}
	members := make([]string, 0, len(finder.silent))
	for member := range finder.silent {
		if !finder.heeded[member] {
			members = append(members, member)
		}
	}
	slices.Sort(members)
	var found []problem
	for _, member := range members {
		found = append(found, problem{
			Code: "unreported_posture", Name: member,
			Message: "a device that does not report posture." + member + " is not objected to",
		}.at(finder.silent[member]))
	}
	return found
}

type visited struct {
	rule     *ast.Rule
	positive bool
}

// missingFinder follows rules; `positive`: what is undefined there keeps the objection from being made.
type missingFinder struct {
	p      *policy
	silent map[string]*ast.Location
	heeded map[string]bool
	seen   map[visited]bool
}

func (f *missingFinder) rule(rule *ast.Rule, positive bool) {
	for ; rule != nil; rule = rule.Else {
		if f.seen[visited{rule, positive}] {
			continue
		}
		f.seen[visited{rule, positive}] = true
		f.body(rule.Body, positive)
		f.refs(rule.Head, positive)
	}
}

func (f *missingFinder) body(body ast.Body, positive bool) {
	for _, expression := range body {
		f.refs(expression, positive != expression.Negated)
	}
}

// refs looks at every reference of a node; nested bodies (comprehensions, every) bring their own negations.
func (f *missingFinder) refs(node any, positive bool) {
	visitor := ast.NewGenericVisitor(func(inner any) bool {
		switch inner := inner.(type) {
		case ast.Body:
			f.body(inner, positive)
			return true
		case ast.Ref:
			f.ref(inner, positive)
		}
		return false
	})
	visitor.Walk(node)
}

func (f *missingFinder) ref(ref ast.Ref, positive bool) {
	switch {
	case ref.HasPrefix(openObject) && len(ref) > len(openObject):
		member, ok := ref[len(openObject)].Value.(ast.String)
		if !ok {
			return
		}
		if !positive {
			f.heeded[string(member)] = true
		} else if place, known := f.silent[string(member)]; !known || before(ref[0].Location, place) {
			f.silent[string(member)] = ref[0].Location
		}
	case ref.HasPrefix(ast.DefaultRootRef):
		for _, rule := range f.p.compiler.GetRules(ref) {
			f.rule(rule, positive)
		}
	}
}

func before(one, other *ast.Location) bool {
	if one == nil || other == nil {
		return other == nil
	}
	if order := strings.Compare(one.File, other.File); order != 0 {
		return order < 0
	}
	return one.Row < other.Row
}

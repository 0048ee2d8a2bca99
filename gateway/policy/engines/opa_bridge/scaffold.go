package main

import (
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// scaffoldValue is of any type.
const scaffoldValue = "input.gateway_scaffold"

// scaffold answers {modules}: for each package a module that declares every rule of it and gives none a value. A server
// that is filled over its REST API takes one module at a time and refuses what it does not know yet; with the
// scaffold in place it takes the modules in any order.
func scaffold(request, _ []byte) any {
	p, err := handleOf(request)
	if err != nil {
		return problemsOf(err)
	}
	bodies, order := map[string]*strings.Builder{}, []string{}
	declared := map[string]bool{}
	for _, file := range p.sources {
		module := p.parsed[file.Name]
		home := module.Package.String()
		if bodies[home] == nil {
			bodies[home] = &strings.Builder{}
			bodies[home].WriteString(home + "\n")
			order = append(order, home)
		}
		for _, rule := range module.Rules {
			if declaration := declarationOf(rule); !declared[home+declaration] {
				declared[home+declaration] = true
				bodies[home].WriteString("\n" + declaration + "\n")
			}
		}
	}
	modules := []string{}
	for _, home := range order {
		modules = append(modules, bodies[home].String())
	}
	return map[string]any{"modules": modules}
}

// declarationOf is a rule of the same name and kind that is never true and whose value may be of any type.
func declarationOf(rule *ast.Rule) string {
	ref := rule.Head.Ref().Copy()
	body := "false"
	for index, term := range ref {
		if _, constant := term.Value.(ast.String); index > 0 && !constant {
			ref[index] = ast.VarTerm("k" + strconv.Itoa(index))
			body += "; some k" + strconv.Itoa(index) + " in " + scaffoldValue
		}
	}
	name, condition := ref.String(), " if { "+body+" }"
	switch {
	case len(rule.Head.Args) > 0:
		return name + "(" + strings.Repeat("_, ", len(rule.Head.Args)-1) + "_) := " + scaffoldValue + condition
	case rule.Head.RuleKind() == ast.MultiValue:
		return name + " contains " + scaffoldValue + condition
	}
	return name + " := " + scaffoldValue + condition
}

package main

import (
	"encoding/json"
	"slices"
	"sort"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/dependencies"
)

// reached is every rule that the entry point can come to, by the graph in which the compiler looks for recursion.
func (p *policy) reached() map[*ast.Rule]bool {
	reached := map[*ast.Rule]bool{}
	waiting := p.compiler.GetRulesWithPrefix(p.entry)
	for len(waiting) > 0 {
		rule := waiting[len(waiting)-1]
		waiting = waiting[:len(waiting)-1]
		if reached[rule] {
			continue
		}
		reached[rule] = true
		if rule.Else != nil {
			waiting = append(waiting, rule.Else)
		}
		for next := range p.compiler.Graph.Dependencies(rule) {
			waiting = append(waiting, next.(*ast.Rule))
		}
	}
	return reached
}

// reads is every part of the input that the entry point can read, none inside another; a part ends where a reference
// stops being constant. Never nil; one empty path is the whole input.
//
// OPA's own `dependencies` follows values through variables and leaves out what it takes to be unused, so it is more
// exact; a decision memory must not miss anything, so every reference of every reached rule counts here.
func (p *policy) reads() [][]string {
	paths := [][]string{}
	var visitor *ast.GenericVisitor
	visitor = ast.NewGenericVisitor(func(node any) bool {
		switch node := node.(type) {
		case ast.Ref:
			if node.HasPrefix(ast.InputRootRef) {
				paths = append(paths, names(node[1:]))
			} else if _, isName := node[0].Value.(ast.Var); !isName {
				visitor.Walk(node[0])
			}
			for _, term := range node[1:] {
				visitor.Walk(term)
			}
			return true
		case ast.Var:
			if node.Equal(ast.InputRootDocument.Value) {
				paths = append(paths, []string{})
			}
		}
		return false
	})
	for rule := range p.reached() {
		visitor.Walk(rule)
	}
	return outermost(paths)
}

// names are the constant strings that a reference begins with.
func names(ref ast.Ref) []string {
	path := []string{}
	for _, term := range ref {
		name, ok := term.Value.(ast.String)
		if !ok {
			break
		}
		path = append(path, string(name))
	}
	return path
}

// outermost sorts paths and leaves out what lies inside another.
func outermost(paths [][]string) [][]string {
	slices.SortFunc(paths, slices.Compare[[]string])
	kept := [][]string{}
	for _, path := range paths {
		if last := len(kept) - 1; last >= 0 && len(kept[last]) <= len(path) &&
			slices.Equal(kept[last], path[:len(kept[last])]) {
			continue
		}
		kept = append(kept, path)
	}
	return kept
}

// dependencies answers {reads, input, data, rules}: `reads` for the decision memory, the others as `opa deps` has them.
func dependenciesOf(p *policy) (map[string]any, error) {
	base, err := dependencies.Base(p.compiler, p.query)
	if err != nil {
		return nil, err
	}
	virtual, err := dependencies.Virtual(p.compiler, p.query)
	if err != nil {
		return nil, err
	}
	lines := map[string][]string{"input": {}, "data": {}, "rules": {}}
	for _, ref := range base {
		root := plain(ref[0].Value)
		lines[root] = append(lines[root], ref.String())
	}
	for _, ref := range virtual {
		lines["rules"] = append(lines["rules"], ref.String())
	}
	for _, list := range lines {
		sort.Strings(list)
	}
	return map[string]any{
		"reads": p.reads(), "input": lines["input"], "data": lines["data"], "rules": lines["rules"],
	}, nil
}

// unused is what the entry point never comes to: rules of its own package (unused_rule), whole packages
// (unused_package), and rules of packages that are used in part (unused_library_rule). Each name once.
func (p *policy) unused() []problem {
	reached := p.reached()
	seen, rules := map[string]bool{}, map[string][]string{}
	for rule := range reached {
		home := rule.Module.Package.Path.String()
		seen[rule.Ref().GroundPrefix().String()] = true
		rules[home] = append(rules[home], plain(rule.Head.Ref()[0].Value))
	}
	packages := make([]string, 0, len(rules))
	for home, list := range rules {
		slices.Sort(list)
		rules[home] = slices.Compact(list)
		packages = append(packages, strings.TrimPrefix(home, "data."))
	}
	slices.Sort(packages)
	own := p.entry[:len(p.entry)-1].String()
	var found []problem
	for _, file := range p.sources {
		module := p.compiler.Modules[file.Name]
		home := module.Package.Path.String()
		for _, rule := range module.Rules {
			full := rule.Ref().GroundPrefix().String()
			if seen[full] || rules[home] == nil && seen[home] {
				continue
			}
			seen[full] = true
			short := strings.TrimPrefix(full, home+".")
			unused := problem{Name: short, Known: rules[home]}
			switch {
			case rules[home] == nil:
				seen[home] = true
				unused.Name = strings.TrimPrefix(home, "data.")
				unused.Code, unused.Known = "unused_package", packages
				unused.Message = "nothing asks for the package " + unused.Name
			case home == own:
				unused.Code, unused.Message = "unused_rule", "nothing asks for the rule "+short
			default:
				unused.Code, unused.Message = "unused_library_rule", "nothing asks for the rule "+short
			}
			found = append(found, unused.at(rule.Location))
		}
	}
	return found
}

// shadowed is every local variable or argument that bears the name of a rule of its package, of an import or of a
// builtin's root.
func (p *policy) shadowed() []problem {
	rules := map[string]map[string]bool{}
	for _, module := range p.parsed {
		path := module.Package.Path.String()
		if rules[path] == nil {
			rules[path] = map[string]bool{}
		}
		for _, rule := range module.Rules {
			rules[path][plain(rule.Head.Ref()[0].Value)] = true
		}
	}
	var found []problem
	for _, file := range p.sources {
		module := p.parsed[file.Name]
		imports := map[string]bool{}
		for _, imported := range module.Imports {
			imports[string(imported.Name())] = true
		}
		seen := map[string]bool{}
		declare := func(term *ast.Term) {
			ast.WalkVars(term, func(variable ast.Var) bool {
				name, kind := string(variable), ""
				switch {
				case rules[module.Package.Path.String()][name]:
					kind = "rule"
				case imports[name]:
					kind = "import"
				}
				key := name + term.Location.String()
				if kind != "" && !seen[key] {
					seen[key] = true
					found = append(found, problem{
						Code: "shadowed_name", Message: "the variable " + name + " hides the " + kind + " of this name",
						Name: name,
					}.at(term.Location))
				}
				return false
			})
		}
		for _, rule := range module.Rules {
			for _, argument := range rule.Head.Args {
				declare(argument)
			}
			ast.WalkExprs(rule, func(expression *ast.Expr) bool {
				switch terms := expression.Terms.(type) {
				case *ast.SomeDecl:
					for _, symbol := range terms.Symbols {
						if call, ok := symbol.Value.(ast.Call); ok { // some k, v in xs
							for _, term := range call[1 : len(call)-1] {
								declare(term)
							}
						} else {
							declare(symbol)
						}
					}
				case *ast.Every:
					if terms.Key != nil {
						declare(terms.Key)
					}
					declare(terms.Value)
				case []*ast.Term:
					if expression.IsAssignment() {
						declare(expression.Operand(0))
					}
				}
				return false
			})
		}
	}
	return found
}

func handleOf(request []byte) (*policy, error) {
	var wanted struct {
		Handle uint64 `json:"handle"`
	}
	if err := json.Unmarshal(request, &wanted); err != nil {
		return nil, err
	}
	entry, found := policies.Load(wanted.Handle)
	if !found {
		return nil, ast.NewError("bridge_error", nil, "no policies with this handle")
	}
	return entry.(*policy), nil
}

func dependenciesOperation(request, _ []byte) any {
	p, err := handleOf(request)
	if err != nil {
		return problemsOf(err)
	}
	answer, err := dependenciesOf(p)
	if err != nil {
		return problemsOf(err)
	}
	return answer
}

// inspect answers {annotations}: every metadata annotation of the modules, with its place and what it is about.
func inspect(request, _ []byte) any {
	p, err := handleOf(request)
	if err != nil {
		return problemsOf(err)
	}
	modules := make([]*ast.Module, 0, len(p.sources))
	for _, file := range p.sources {
		modules = append(modules, p.parsed[file.Name])
	}
	set, errs := ast.BuildAnnotationSet(modules)
	if len(errs) > 0 {
		return problemsOf(errs)
	}
	entries := []map[string]any{}
	for _, reference := range set.Flatten() {
		place := problem{}.at(reference.Location)
		entries = append(entries, map[string]any{
			"path": reference.Path.String(), "annotations": reference.Annotations, "file": place.File, "row": place.Row,
		})
	}
	return map[string]any{"annotations": entries}
}

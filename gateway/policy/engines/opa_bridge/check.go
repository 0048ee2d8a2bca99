package main

import (
	"encoding/json"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"
)

type checkRequest struct {
	Handle uint64         `json:"handle"`
	Input  map[string]any `json:"input_schema"`
	Data   map[string]any `json:"data_schema"`
	Answer []string       `json:"answer_members"`
}

// check looks for what is well formed and says nothing, because a name in it is wrong. It answers {problems} with the
// codes rego_type_error (against the schemas), unknown_answer_member, unused_rule, unused_package and shadowed_name.
func check(request, _ []byte) any {
	p, err := handleOf(request)
	if err != nil {
		return problemsOf(err)
	}
	var wanted checkRequest
	if err := json.Unmarshal(request, &wanted); err != nil {
		return problemsOf(err)
	}
	found := p.typeErrors(wanted.Input, wanted.Data)
	found = append(found, p.unknownMembers(wanted.Answer)...)
	found = append(found, p.unused()...)
	found = append(found, p.shadowed()...)
	found = append(found, p.silentOnMissing()...)
	if found == nil {
		found = []problem{}
	}
	return problems(found...)
}

// strictCheck compiles the modules in OPA's strict mode: unused variables and imports, duplicate imports, deprecated
// builtins, `input` and `data` as names. It answers {problems}.
func strictCheck(request, _ []byte) any {
	p, err := handleOf(request)
	if err != nil {
		return problemsOf(err)
	}
	found := []problem{}
	compiler := newCompiler(false).WithStrict(true)
	compiler.Compile(copied(p.parsed))
	for _, err := range compiler.Errors {
		found = append(found, staticProblem(err))
	}
	return problems(found...)
}

// typeErrors compiles the modules once more, over the schemas. What may be null counts as what it is otherwise, for
// OPA's checker knows no null; where it then objects to a comparison with null, it is not right.
func (p *policy) typeErrors(input, data map[string]any) []problem {
	schemas := ast.NewSchemaSet()
	if input != nil {
		schemas.Put(ast.SchemaRootRef, strict(input))
	}
	modules := copied(p.parsed)
	if data != nil {
		describe(modules, schemas, data)
	}
	compiler := newCompiler(false).WithSchemas(schemas).WithUseTypeCheckAnnotations(true)
	compiler.Compile(modules)
	var found []problem
	for _, err := range compiler.Errors {
		if !concernsNull(err) && !concernsAnyName(err) {
			found = append(found, staticProblem(err))
		}
	}
	return found
}

// anyName is the member that stands for all of an object whose names nobody can know.
const anyName = "*"

// strict is a JSON schema as OPA's checker understands it: no null, and no members beside those of an open object.
func strict(schema any) any {
	switch node := schema.(type) {
	case []any:
		changed := make([]any, len(node))
		for index, item := range node {
			changed[index] = strict(item)
		}
		return changed
	case map[string]any:
		changed := map[string]any{}
		for key, value := range node {
			switch key {
			case "type":
				if list, ok := value.([]any); ok {
					list = slices.DeleteFunc(slices.Clone(list), func(item any) bool { return item == "null" })
					value = list
					if len(list) == 1 {
						value = list[0]
					}
				}
				changed[key] = value
			case "$schema", "$id", "pattern", "propertyNames", "enum", "const":
			default:
				changed[key] = strict(value)
			}
		}
		members, _ := changed["properties"].(map[string]any)
		more, typed := node["additionalProperties"].(map[string]any)
		switch {
		case node["type"] == nil || changed["type"] != "object":
		case typed && node["additionalProperties"] != nil && len(members) == 0 && more["properties"] != nil:
			changed["properties"] = map[string]any{anyName: strict(more)}
		case len(members) > 0 && node["additionalProperties"] != false:
			delete(changed, "properties")
		}
		return changed
	}
	return schema
}

// describe says in every package that data follow a schema: OPA reads that from annotations alone.
func describe(modules map[string]*ast.Module, schemas *ast.SchemaSet, data map[string]any) {
	annotations := ""
	members, _ := data["properties"].(map[string]any)
	for _, outer := range sortedKeys(members) {
		below, _ := members[outer].(map[string]any)["properties"].(map[string]any)
		for _, inner := range sortedKeys(below) {
			resolved := map[string]any{"$defs": data["$defs"]}
			for key, value := range below[inner].(map[string]any) {
				resolved[key] = value
			}
			name := outer + "_" + inner
			schemas.Put(ast.MustParseRef("schema."+name), strict(resolved))
			annotations += "#   - data." + outer + "." + inner + ": schema." + name + "\n"
		}
	}
	roots := map[string]bool{}
	for _, module := range modules {
		roots[plain(module.Package.Path[1].Value)] = true
	}
	for root := range roots {
		text := "# METADATA\n# scope: subpackages\n# schemas:\n" + annotations + "package " + root + "\n"
		if module, err := ast.ParseModuleWithOpts("", text, parserOptions); err == nil {
			modules["\x00"+root] = module
		}
	}
}

func sortedKeys(of map[string]any) []string {
	keys := make([]string, 0, len(of))
	for key := range of {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func concernsNull(err *ast.Error) bool {
	switch detail := err.Details.(type) {
	case *ast.UnificationErrDetail:
		return types.Compare(detail.Left, types.Nl) == 0 || types.Compare(detail.Right, types.Nl) == 0
	case *ast.ArgErrDetail:
		for _, argument := range detail.Want.Args {
			if types.Compare(argument, types.Nl) == 0 {
				return true
			}
		}
	}
	return false
}

// concernsAnyName: a constant name below an object that is described by `anyName` alone.
func concernsAnyName(err *ast.Error) bool {
	detail, ok := err.Details.(*ast.RefErrInvalidDetail)
	return ok && len(detail.OneOf) == 1 && detail.OneOf[0].Compare(ast.String(anyName)) == 0
}

// unknownMembers is every member of an answer that the contract does not know, where the answer is written out.
func (p *policy) unknownMembers(known []string) []problem {
	if len(known) == 0 {
		return nil
	}
	var found []problem
	for _, rule := range p.compiler.GetRulesWithPrefix(p.entry) {
		parsed := p.written(rule)
		for ; parsed != nil; parsed = parsed.Else {
			if parsed.Head.Value == nil {
				continue
			}
			answer, ok := parsed.Head.Value.Value.(ast.Object)
			if !ok {
				continue
			}
			answer.Foreach(func(key, _ *ast.Term) {
				name, constant := key.Value.(ast.String)
				if constant && !slices.Contains(known, string(name)) {
					found = append(found, problem{
						Code: "unknown_answer_member", Message: "the gateway knows no member " + string(name) + " of an answer",
						Name: string(name), Known: known,
					}.at(key.Location))
				}
			})
		}
	}
	return found
}

// written is the rule as the author wrote it, before the compiler rewrote it.
func (p *policy) written(rule *ast.Rule) *ast.Rule {
	for _, candidate := range p.parsed[rule.Location.File].Rules {
		if candidate.Location.Row == rule.Location.Row && candidate.Location.Col == rule.Location.Col {
			return candidate
		}
	}
	return nil
}

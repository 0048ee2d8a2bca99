package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/util"
)

const answerVariable = "answer"

// source is one file of Rego.
type source struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// policy is what one generation decides by: it is never changed, so any number of threads may evaluate it.
type policy struct {
	entry    ast.Ref
	sources  []source
	parsed   map[string]*ast.Module // as written
	compiler *ast.Compiler
	query    ast.Body
	queries  ast.QueryCompiler
	store    storage.Store
}

type loadRequest struct {
	Modules []source `json:"modules"`
	Entry   string   `json:"entry"` // a reference below data; empty: nothing is evaluated but by `query`
	Impure  bool     `json:"impure"`
}

// load compiles modules over a data document (the payload) and answers {handle, reads, packages} or {problems}.
func load(request, payload []byte) any {
	var wanted loadRequest
	if err := json.Unmarshal(request, &wanted); err != nil {
		return problemsOf(err)
	}
	p, err := newPolicy(wanted, payload)
	if err != nil {
		return problemsOf(err)
	}
	handle := handles.Add(1)
	policies.Store(handle, p)
	loaded.Add(1)
	settle()
	packages := map[string][]string{}
	for name, module := range p.parsed {
		packages[name] = names(module.Package.Path[1:])
	}
	return map[string]any{"handle": handle, "reads": p.reads(), "packages": packages}
}

func newPolicy(wanted loadRequest, data []byte) (*policy, error) {
	p := &policy{sources: wanted.Modules}
	var err error
	if p.parsed, err = parse(wanted.Modules); err != nil {
		return nil, err
	}
	if p.store, err = newStore(data); err != nil {
		return nil, err
	}
	if p.compiler, err = compile(p.parsed, wanted.Impure, p.store); err != nil {
		return nil, err
	}
	p.queries = p.compiler.QueryCompiler()
	if wanted.Entry == "" {
		return p, nil
	}
	if p.entry, err = ast.ParseRef(wanted.Entry); err != nil {
		return nil, err
	}
	if len(p.compiler.GetRulesWithPrefix(p.entry)) == 0 {
		return nil, ast.NewError("entry_point_missing", nil, "no rule gives %v", p.entry)
	}
	p.query, err = p.queries.Compile(ast.NewBody(ast.Equality.Expr(ast.VarTerm(answerVariable), ast.NewTerm(p.entry))))
	return p, err
}

// parse reads every module; all syntax errors are in the error.
func parse(sources []source) (map[string]*ast.Module, error) {
	modules := make(map[string]*ast.Module, len(sources))
	var found ast.Errors
	for _, file := range sources {
		if !utf8.ValidString(file.Text) {
			found = append(found, &ast.Error{
				Code: ast.ParseErr, Message: "the file is not UTF-8", Location: &ast.Location{File: file.Name, Row: 1},
			})
			continue
		}
		module, err := ast.ParseModuleWithOpts(file.Name, file.Text, parserOptions)
		var many ast.Errors
		switch {
		case errors.As(err, &many):
			found = append(found, many...)
		case err != nil:
			return nil, err
		case module == nil:
			found = append(found, &ast.Error{
				Code: ast.ParseErr, Message: "the file is empty", Location: &ast.Location{File: file.Name, Row: 1},
			})
		default:
			modules[file.Name] = module
		}
	}
	if len(found) > 0 {
		return nil, found
	}
	return modules, nil
}

var parserOptions = ast.ParserOptions{ProcessAnnotation: true, RegoVersion: ast.RegoV1}

// compile checks the modules together. `impure` allows every builtin that OPA has.
func compile(parsed map[string]*ast.Module, impure bool, store storage.Store) (*ast.Compiler, error) {
	compiler := newCompiler(impure)
	if store != nil {
		ctx := context.Background()
		transaction, err := store.NewTransaction(ctx)
		if err != nil {
			return nil, err
		}
		defer store.Abort(ctx, transaction)
		compiler.WithPathConflictsCheck(storage.NonEmpty(ctx, store, transaction))
	}
	compiler.Compile(copied(parsed))
	if compiler.Failed() {
		return nil, compiler.Errors
	}
	return compiler, nil
}

func newCompiler(impure bool) *ast.Compiler {
	// Where print statements are not enabled, the compiler removes them instead of refusing them.
	compiler := ast.NewCompiler().SetErrorLimit(0).WithEnablePrintStatements(true)
	if !impure {
		compiler.WithCapabilities(pureCapabilities())
	}
	return compiler
}

func copied(modules map[string]*ast.Module) map[string]*ast.Module {
	copies := make(map[string]*ast.Module, len(modules))
	for name, module := range modules {
		copies[name] = module.Copy()
	}
	return copies
}

// newStore holds a data document in memory, as values of the AST.
func newStore(data []byte) (storage.Store, error) {
	document := map[string]any{}
	if len(data) > 0 {
		if err := util.UnmarshalJSON(data, &document); err != nil {
			return nil, ast.NewError("data_error", nil, "the data are no JSON object: %v", err)
		}
	}
	return inmem.NewFromObjectWithOpts(document, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true)), nil
}

// evaluate asks the entry point; see the letters in main.go.
func (p *policy) evaluate(input []byte, cancel topdown.Cancel) []byte {
	if p.query == nil {
		return failure(problem{Code: "bridge_error", Message: "the policies were loaded without an entry point"})
	}
	document, err := parseInput(input)
	if err != nil {
		return failure(problem{Code: "input_error", Message: err.Error()})
	}
	answer, err := p.run(p.query, p.queries, document, cancel, nil, answerVariable)
	switch {
	case topdown.IsCancel(err):
		return []byte{cancelled}
	case err != nil:
		return failure(problemsOf(err).Problems[0])
	case answer == nil:
		return []byte{undefined}
	}
	if cancel.Cancelled() {
		return []byte{cancelled}
	}
	value, err := ast.JSON(answer.Value)
	if err != nil {
		return failure(problem{Code: "bridge_error", Message: err.Error()})
	}
	text := bytes.NewBuffer(make([]byte, 0, 512))
	text.WriteByte(answered)
	encoder := json.NewEncoder(text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return failure(problem{Code: "bridge_error", Message: err.Error()})
	}
	return text.Bytes()
}

// run evaluates a compiled query and gives what its variable is bound to, nil when it is undefined.
func (p *policy) run(
	query ast.Body, compiler ast.QueryCompiler, input *ast.Term, cancel topdown.Cancel, tracer topdown.QueryTracer,
	variable ast.Var,
) (answer *ast.Term, err error) {
	ctx := context.Background()
	transaction, err := p.store.NewTransaction(ctx)
	if err != nil {
		return nil, err
	}
	defer p.store.Abort(ctx, transaction)
	run := topdown.NewQuery(query).
		WithQueryCompiler(compiler).
		WithCompiler(p.compiler).
		WithStore(p.store).
		WithTransaction(transaction).
		WithCancel(cancel).
		WithMetrics(metrics.NoOp()).
		WithStrictBuiltinErrors(true)
	if input != nil {
		run = run.WithInput(input)
	}
	if tracer != nil { // everything is looked at, not only what the index lets through
		run = run.WithQueryTracer(tracer).WithIndexing(false).WithEarlyExit(false)
	}
	err = run.Iter(ctx, func(result topdown.QueryResult) error {
		answer = result[variable]
		return nil
	})
	return answer, err
}

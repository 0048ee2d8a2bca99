package main

import (
	"context"
	"encoding/json"
	"sort"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// query evaluates any query over loaded policies, the payload being the input. It answers {results}: for each result
// the values of its variables.
func query(request, payload []byte) any {
	var wanted struct {
		Query      string `json:"query"`
		DeadlineMS int64  `json:"deadline_ms"`
		Lenient    bool   `json:"lenient"` // a builtin that fails is undefined
	}
	p, err := handleOf(request)
	if err == nil {
		err = json.Unmarshal(request, &wanted)
	}
	if err != nil {
		return problemsOf(err)
	}
	body, err := ast.ParseBodyWithOpts(wanted.Query, parserOptions)
	if err != nil {
		return problemsOf(err)
	}
	compiler := p.compiler.QueryCompiler()
	compiled, err := compiler.Compile(body)
	if err != nil {
		return problemsOf(err)
	}
	input, err := parseInput(payload)
	if err != nil {
		return problems(problem{Code: "input_error", Message: err.Error()})
	}
	ctx := context.Background()
	transaction, err := p.store.NewTransaction(ctx)
	if err != nil {
		return problemsOf(err)
	}
	defer p.store.Abort(ctx, transaction)
	cancel := topdown.NewCancel()
	defer time.AfterFunc(time.Duration(wanted.DeadlineMS)*time.Millisecond, cancel.Cancel).Stop()
	run := topdown.NewQuery(compiled).WithQueryCompiler(compiler).WithCompiler(p.compiler).WithStore(p.store).
		WithTransaction(transaction).WithCancel(cancel).WithStrictBuiltinErrors(!wanted.Lenient)
	if input != nil {
		run = run.WithInput(input)
	}
	rewritten := compiler.RewrittenVars()
	results := []map[string]any{}
	err = run.Iter(ctx, func(found topdown.QueryResult) error {
		values := map[string]any{}
		for variable, term := range found {
			if original, ok := rewritten[variable]; ok {
				variable = original
			}
			if variable.IsGenerated() || variable.IsWildcard() {
				continue
			}
			value, err := ast.JSON(term.Value)
			if err != nil {
				return err
			}
			values[string(variable)] = value
		}
		results = append(results, values)
		return nil
	})
	if err != nil {
		return problemsOf(err)
	}
	return map[string]any{"results": results}
}

// outcome is how one rule, or one expression of it, came out.
type outcome struct {
	Rule    string `json:"rule"`
	Text    string `json:"text"`
	File    string `json:"file"`
	Row     int    `json:"row"`
	Outcome string `json:"outcome"` // true, or false for an expression that failed
	Default bool   `json:"default,omitempty"`
}

// explain evaluates the entry point over the payload and answers {answer, fired, failed}: the rules that gave something,
// in order, and for every rule that gave nothing the expression that failed first and furthest.
func explain(request, payload []byte) any {
	var wanted struct {
		DeadlineMS int64 `json:"deadline_ms"`
	}
	p, err := handleOf(request)
	if err == nil {
		err = json.Unmarshal(request, &wanted)
	}
	if err != nil {
		return problemsOf(err)
	}
	input, err := parseInput(payload)
	if err != nil {
		return problems(problem{Code: "input_error", Message: err.Error()})
	}
	cancel := topdown.NewCancel()
	defer time.AfterFunc(time.Duration(wanted.DeadlineMS)*time.Millisecond, cancel.Cancel).Stop()
	tracer := &explainer{fired: map[*ast.Rule]bool{}, failed: map[*ast.Rule]*ast.Expr{}, rules: map[uint64]*ast.Rule{}}
	answer, err := p.run(p.query, p.queries, input, cancel, tracer, answerVariable)
	if err != nil {
		return problemsOf(err)
	}
	explained := map[string]any{"answer": nil, "fired": tracer.rulesFired(), "failed": tracer.rulesFailed()}
	if answer != nil {
		if explained["answer"], err = ast.JSON(answer.Value); err != nil {
			return problemsOf(err)
		}
	}
	return explained
}

// explainer is a tracer that remembers, for each rule, whether it gave a value and what stopped it.
type explainer struct {
	order  []*ast.Rule
	fired  map[*ast.Rule]bool
	failed map[*ast.Rule]*ast.Expr
	rules  map[uint64]*ast.Rule
}

func (*explainer) Enabled() bool { return true }

func (*explainer) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

func (t *explainer) TraceEvent(event topdown.Event) {
	switch node := event.Node.(type) {
	case *ast.Rule:
		switch event.Op {
		case topdown.EnterOp:
			t.rules[event.QueryID] = node
			if _, known := t.failed[node]; !known && !t.fired[node] {
				t.failed[node] = nil
				t.order = append(t.order, node)
			}
		case topdown.ExitOp:
			t.fired[node] = true
		}
	case *ast.Expr:
		rule, inRule := t.rules[event.QueryID]
		if event.Op == topdown.FailOp && inRule && !t.fired[rule] {
			if before := t.failed[rule]; before == nil || before.Index < node.Index {
				t.failed[rule] = node
			}
		}
	}
}

func (t *explainer) rulesFired() []outcome {
	list := []outcome{}
	for _, rule := range t.order {
		if t.fired[rule] {
			list = append(list, placed(rule, rule.Location, "true"))
		}
	}
	return list
}

func (t *explainer) rulesFailed() []outcome {
	list := []outcome{}
	for _, rule := range t.order {
		if !t.fired[rule] && t.failed[rule] != nil {
			list = append(list, placed(rule, t.failed[rule].Location, "false"))
		}
	}
	return list
}

func placed(rule *ast.Rule, location *ast.Location, how string) outcome {
	place := problem{}.at(location)
	text := ""
	if location != nil {
		text = string(location.Text)
	}
	return outcome{
		Rule: rule.Ref().String(), Text: text, File: place.File, Row: place.Row, Outcome: how, Default: rule.Default,
	}
}

// test runs every rule `test_...` and answers {tests, coverage}: of each its name, place, time and why it failed.
func test(request, payload []byte) any {
	var wanted struct {
		Modules  []source `json:"modules"`
		Filter   string   `json:"filter"`
		Coverage bool     `json:"coverage"`
		Timeout  int64    `json:"timeout_ms"`
	}
	if err := json.Unmarshal(request, &wanted); err != nil {
		return problemsOf(err)
	}
	parsed, err := parse(wanted.Modules)
	if err != nil {
		return problemsOf(err)
	}
	store, err := newStore(payload)
	if err != nil {
		return problemsOf(err)
	}
	ctx := context.Background()
	transaction, err := store.NewTransaction(ctx)
	if err != nil {
		return problemsOf(err)
	}
	defer store.Abort(ctx, transaction)
	compiler := ast.NewCompiler().SetErrorLimit(0).WithCapabilities(testCapabilities()).
		WithEnablePrintStatements(true).WithRewriteTestRules(true)
	runner := tester.NewRunner().SetCompiler(compiler).SetStore(store).CapturePrintOutput(true).EnableTracing(true).
		RaiseBuiltinErrors(true).SetTimeout(time.Duration(wanted.Timeout) * time.Millisecond).SetModules(parsed).
		Filter(wanted.Filter)
	coverage := cover.New()
	if wanted.Coverage {
		runner = runner.SetCoverageQueryTracer(coverage)
	}
	results, err := runner.RunTests(ctx, transaction)
	if err != nil {
		return problemsOf(err)
	}
	tests := []map[string]any{}
	for result := range results {
		tests = append(tests, testResult(result))
	}
	sort.Slice(tests, func(a, b int) bool { return tests[a]["name"].(string) < tests[b]["name"].(string) })
	answer := map[string]any{"tests": tests}
	if wanted.Coverage {
		answer["coverage"] = coverage.Report(parsed)
	}
	return answer
}

func testResult(result *tester.Result) map[string]any {
	place := problem{}.at(result.Location)
	answer := map[string]any{
		"name": result.Package + "." + result.Name, "file": place.File, "row": place.Row, "passed": result.Pass(),
		"skipped": result.Skip, "ms": float64(result.Duration.Microseconds()) / 1000, "output": string(result.Output),
		"error": "", "failed_at": nil,
	}
	if result.Error != nil {
		answer["error"] = result.Error.Error()
	}
	if place := failedAt(result); place != nil {
		answer["failed_at"] = problem{Message: string(place.Text)}.at(place)
	}
	return answer
}

// failedAt is the expression of the test itself that failed last, nil where there is none.
func failedAt(result *tester.Result) *ast.Location {
	var place *ast.Location
	inTest := map[uint64]bool{}
	for _, event := range result.Trace {
		switch node := event.Node.(type) {
		case *ast.Rule:
			if event.Op == topdown.EnterOp && node.Location.Equal(result.Location) {
				inTest[event.QueryID] = true
			}
		case *ast.Expr:
			if event.Op == topdown.FailOp && inTest[event.QueryID] {
				place = node.Location
			}
		}
	}
	return place
}

// testCapabilities are the pure ones and print.
func testCapabilities() *ast.Capabilities {
	allowed := *pureCapabilities()
	allowed.Builtins = append(append([]*ast.Builtin{}, allowed.Builtins...), ast.Print, ast.InternalPrint)
	return &allowed
}

// formatted answers {text}: the payload as `opa fmt` writes it.
func formatted(request, payload []byte) any {
	var wanted struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(request, &wanted); err != nil {
		return problemsOf(err)
	}
	text, err := format.SourceWithOpts(wanted.Name, payload, format.Opts{RegoVersion: ast.RegoV1})
	if err != nil {
		return problemsOf(err)
	}
	return map[string]any{"text": string(text)}
}

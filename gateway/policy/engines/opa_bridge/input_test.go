package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// FuzzParseInput: what parseInput takes is what ast.ValueFromReader reads, and it takes nothing else.
func FuzzParseInput(f *testing.F) {
	for _, text := range []string{
		`{}`, `[]`, `""`, `0`, `-0`, `1e5`, `-1.5E-3`, `true`, `false`, `null`, ` { "a" : [ 1 , 2 ] } `, `{"a":{"b":{}}}`,
		`"\ud83d\ude00\n\""`, `"\ud800"`, `{"a":1,"a":2}`, `[1,]`, `[,1]`, `{,}`, `{"a":1,}`, `{"a"}`, `{"a" 1}`, `01`, `1.`,
		`.5`, `-`, `+1`, `1e`, `tru`, `nulll`, `1 2`, "\"\x01\"", `"`, `"\`, `"\x"`, `{`, `[`, "\xff", `1e400`, `1e99999999`,
		`{"a":1 "b":2}`, `[1 2]`, `{1:2}`, "\u00a0", "\ufeff{}", `[[],{},"",null]`, `9007199254740993`, `-9223372036854775809`,
	} {
		f.Add([]byte(text))
	}
	cases, _ := filepath.Glob("../../../../policies/cases/*.json")
	for _, name := range cases {
		if text, err := os.ReadFile(name); err == nil {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		term, err := parseInput(input)
		value, errOfOPA := ast.ValueFromReader(bytes.NewReader(input))
		if err == nil && term != nil {
			if errOfOPA != nil {
				t.Fatalf("%q was taken, and OPA says %v", input, errOfOPA)
			}
			// Comparing 1e99999999 takes for ever; its text does not.
			if term.Value.String() != value.String() || !bytes.ContainsAny(input, "eE") && term.Hash() != value.Hash() {
				t.Fatalf("%q is %v here and %v in OPA", input, term.Value, value)
			}
		}
		if err != nil && errOfOPA == nil && !strictly(input, err) {
			t.Fatalf("%q was refused: %v", input, err)
		}
	})
}

// strictly: what OPA reads and we refuse on purpose.
func strictly(input []byte, err error) bool {
	for _, reason := range []string{"not UTF-8", "stands twice", "nothing more was expected"} {
		if strings.Contains(err.Error(), reason) {
			return true
		}
	}
	return false
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// maxDepth is how deep encoding/json, and with it an OPA server, reads.
const maxDepth = 10_000

// parseInput is a JSON text as a term, nil when it is empty. It gives what ast.ValueFromReader gives, without the maps
// in between; it refuses invalid UTF-8, which that one replaces, a member that stands twice, of which that one takes
// the last, and anything that follows, which that one leaves unread.
func parseInput(input []byte) (*ast.Term, error) {
	if len(input) == 0 {
		return nil, nil
	}
	if !utf8.Valid(input) {
		return nil, errors.New("the input is not UTF-8")
	}
	reader := jsonReader{text: input}
	term, err := reader.value(0)
	if err != nil {
		return nil, err
	}
	if reader.space(); reader.at < len(input) {
		return nil, reader.wrong("nothing more")
	}
	return term, nil
}

type jsonReader struct {
	text  []byte
	at    int
	terms []ast.Term // not yet given out
	pairs [][2]*ast.Term
	items []*ast.Term
}

// term is a new term. They are made many at a time, for they live and die together.
func (r *jsonReader) term(value ast.Value) *ast.Term {
	if len(r.terms) == 0 {
		r.terms = make([]ast.Term, 64)
	}
	term := &r.terms[0]
	r.terms = r.terms[1:]
	term.Value = value
	return term
}

func (r *jsonReader) wrong(wanted string) error {
	return fmt.Errorf("invalid JSON at byte %d: %s was expected", r.at, wanted)
}

func (r *jsonReader) space() {
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// next is the next byte that is no space, 0 at the end.
func (r *jsonReader) next() byte {
	r.space()
	if r.at == len(r.text) {
		return 0
	}
	return r.text[r.at]
}

func (r *jsonReader) value(depth int) (*ast.Term, error) {
	if depth > maxDepth {
		return nil, errors.New("the input is nested deeper than 10,000: exceeded max depth")
	}
	switch first := r.next(); first {
	case '{':
		return r.object(depth)
	case '[':
		return r.array(depth)
	case '"':
		text, err := r.str()
		return r.term(ast.String(text)), err
	case 't':
		return r.literal("true", ast.InternedTerm(true))
	case 'f':
		return r.literal("false", ast.InternedTerm(false))
	case 'n':
		return r.literal("null", ast.InternedNullTerm)
	default:
		if first == '-' || first >= '0' && first <= '9' {
			return r.number()
		}
		return nil, r.wrong("a value")
	}
}

func (r *jsonReader) literal(text string, term *ast.Term) (*ast.Term, error) {
	if end := r.at + len(text); end > len(r.text) || string(r.text[r.at:end]) != text {
		return nil, r.wrong(text)
	}
	r.at += len(text)
	return term, nil
}

func (r *jsonReader) object(depth int) (*ast.Term, error) {
	r.at++
	start := len(r.pairs)
	for separator := byte('{'); ; separator = ',' {
		switch next := r.next(); {
		case next == '}' && (separator == '{' || len(r.pairs) > start):
			r.at++
			if hasTwins(r.pairs[start:]) {
				return nil, errors.New("invalid JSON: a member stands twice in one object")
			}
			object := ast.NewObject(r.pairs[start:]...)
			r.pairs = r.pairs[:start]
			return r.term(object), nil
		case separator == ',' && next == ',' && len(r.pairs) > start:
			r.at++
			if r.next() != '"' {
				return nil, r.wrong("a name")
			}
		case separator == ',' || next != '"':
			return nil, r.wrong("a name or a brace")
		}
		name, err := r.str()
		if err != nil {
			return nil, err
		}
		if r.next() != ':' {
			return nil, r.wrong("a colon")
		}
		r.at++
		value, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		r.pairs = append(r.pairs, [2]*ast.Term{r.term(ast.String(name)), value})
	}
}

// hasTwins says whether two pairs have one name: ast.NewObject would keep both.
func hasTwins(pairs [][2]*ast.Term) bool {
	if len(pairs) <= 16 {
		for index, pair := range pairs {
			for _, other := range pairs[:index] {
				if pair[0].Value.(ast.String) == other[0].Value.(ast.String) {
					return true
				}
			}
		}
		return false
	}
	seen := make(map[ast.String]struct{}, len(pairs))
	for _, pair := range pairs {
		seen[pair[0].Value.(ast.String)] = struct{}{}
	}
	return len(seen) < len(pairs)
}

func (r *jsonReader) array(depth int) (*ast.Term, error) {
	r.at++
	start := len(r.items)
	for first := true; ; first = false {
		next := r.next()
		if next == ']' {
			r.at++
			array := ast.NewArray(append([]*ast.Term(nil), r.items[start:]...)...)
			r.items = r.items[:start]
			return r.term(array), nil
		}
		if !first {
			if next != ',' {
				return nil, r.wrong("a comma or a bracket")
			}
			r.at++
			if r.next() == ']' {
				return nil, r.wrong("a value")
			}
		}
		value, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		r.items = append(r.items, value)
	}
}

func (r *jsonReader) str() (string, error) {
	start := r.at
	for at := start + 1; at < len(r.text); at++ {
		switch character := r.text[at]; {
		case character == '"':
			r.at = at + 1
			return string(r.text[start+1 : at]), nil
		case character == '\\':
			return r.escaped(at)
		case character < ' ':
			r.at = at
			return "", r.wrong("no control character")
		}
	}
	r.at = len(r.text)
	return "", r.wrong("a quotation mark")
}

// escaped is a string with escapes, the first of which is at `at`: encoding/json reads it.
func (r *jsonReader) escaped(at int) (text string, err error) {
	for ; at < len(r.text) && r.text[at] != '"'; at++ {
		if r.text[at] == '\\' {
			at++
		}
	}
	if at >= len(r.text) {
		r.at = len(r.text)
		return "", r.wrong("a quotation mark")
	}
	err = json.Unmarshal(r.text[r.at:at+1], &text)
	r.at = at + 1
	return text, err
}

func (r *jsonReader) digits() bool {
	start := r.at
	for r.at < len(r.text) && r.text[r.at] >= '0' && r.text[r.at] <= '9' {
		r.at++
	}
	return r.at > start
}

func (r *jsonReader) number() (*ast.Term, error) {
	start := r.at
	if r.text[r.at] == '-' {
		r.at++
	}
	if r.at < len(r.text) && r.text[r.at] == '0' {
		r.at++
	} else if !r.digits() {
		return nil, r.wrong("a digit")
	}
	if r.at < len(r.text) && r.text[r.at] == '.' {
		if r.at++; !r.digits() {
			return nil, r.wrong("a digit")
		}
	}
	if r.at < len(r.text) && r.text[r.at]|0x20 == 'e' {
		r.at++
		if r.at < len(r.text) && (r.text[r.at] == '+' || r.text[r.at] == '-') {
			r.at++
		}
		if !r.digits() {
			return nil, r.wrong("a digit")
		}
	}
	text := string(r.text[start:r.at])
	if interned := ast.InternedIntNumberTermFromString(text); interned != nil {
		return interned, nil
	}
	number, err := ast.NumberChecked(text)
	return r.term(number), err
}

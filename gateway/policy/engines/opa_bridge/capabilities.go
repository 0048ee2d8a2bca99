package main

import (
	"slices"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
)

// clockReaders are builtins that look at the clock and that OPA does not mark as nondeterministic.
var clockReaders = []string{
	"io.jwt.decode_verify", "crypto.x509.parse_and_verify_certificates",
	"crypto.x509.parse_and_verify_certificates_with_options",
}

// sideEffects write somewhere.
var sideEffects = []string{"print", "internal.print", "trace"}

// pureCapabilities are those of this OPA without what looks at a clock, a network, the process or chance.
var pureCapabilities = sync.OnceValue(func() *ast.Capabilities {
	pure := ast.CapabilitiesForThisVersion(ast.CapabilitiesRegoVersion(ast.RegoV1))
	pure.Builtins = slices.DeleteFunc(slices.Clone(pure.Builtins), func(builtin *ast.Builtin) bool {
		return builtin.Nondeterministic || slices.Contains(clockReaders, builtin.Name) ||
			slices.Contains(sideEffects, builtin.Name)
	})
	pure.AllowNet = []string{} // no schema is fetched
	return pure
})

// capabilities is the file that `opa check --capabilities` takes.
func capabilities(_, _ []byte) any {
	pure := pureCapabilities()
	return map[string]any{
		"builtins": pure.Builtins, "allow_net": pure.AllowNet, "future_keywords": pure.FutureKeywords,
		"features": pure.Features, "wasm_abi_versions": pure.WasmABIVersions,
	}
}

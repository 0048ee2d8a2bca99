package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"path"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
)

// readBundle reads an OPA bundle (the payload: a .tar.gz) and answers {revision, modules, data}. With keys its signature
// is verified; a bundle that should be signed and is not is an error.
func readBundle(request, payload []byte) any {
	var wanted struct {
		Keys map[string]struct {
			Key       string `json:"key"`
			Algorithm string `json:"algorithm"`
		} `json:"keys"`
		KeyID string `json:"key_id"`
		Scope string `json:"scope"`
		Limit int64  `json:"limit_bytes"`
	}
	if err := json.Unmarshal(request, &wanted); err != nil {
		return problemsOf(err)
	}
	if err := whole(payload, wanted.Limit); err != nil {
		return problems(problem{Code: "bundle_error", Message: err.Error()})
	}
	reader := bundle.NewCustomReader(bundle.NewTarballLoaderWithBaseURL(bytes.NewReader(payload), "")).
		WithCapabilities(pureCapabilities()).WithRegoVersion(ast.RegoV1).WithSizeLimitBytes(wanted.Limit)
	if wanted.Keys == nil {
		reader = reader.WithSkipBundleVerification(true)
	} else {
		keys := map[string]*bundle.KeyConfig{}
		for name, key := range wanted.Keys {
			keys[name] = &bundle.KeyConfig{Key: key.Key, Algorithm: key.Algorithm}
		}
		reader = reader.WithBundleVerificationConfig(bundle.NewVerificationConfig(keys, wanted.KeyID, wanted.Scope, nil))
	}
	read, err := reader.Read()
	if err != nil {
		return problems(problem{Code: "bundle_error", Message: err.Error()})
	}
	modules := []source{}
	for _, module := range read.Modules {
		modules = append(modules, source{Name: path.Clean(module.Path), Text: string(module.Raw)})
	}
	return map[string]any{"revision": read.Manifest.Revision, "modules": modules, "data": read.Data}
}

// whole reads the archive to its end, with the checksum that stands there: who reads its entries alone stops before.
func whole(archive []byte, limit int64) error {
	reader, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return fmt.Errorf("the bundle is no gzip archive: %w", err)
	}
	size, err := io.Copy(io.Discard, io.LimitReader(reader, limit+1))
	if err != nil {
		return fmt.Errorf("the bundle is cut short or damaged: %w", err)
	}
	if size > limit {
		return fmt.Errorf("the bundle is larger than %d bytes", limit)
	}
	return nil
}

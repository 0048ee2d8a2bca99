#!/bin/sh
# Installs the certified OpenID provider that the contract tests run, into .tools/oidc-provider.
set -eu
here="$(cd "$(dirname "$0")" && pwd)"
there="$here/../../../../.tools/oidc-provider"
if ! command -v npm >/dev/null 2>&1; then echo "tools: no npm on this machine, so no oidc-provider"; exit 0; fi
mkdir -p "$there"
if cmp -s "$here/package-lock.json" "$there/package-lock.json" && [ -d "$there/node_modules/oidc-provider" ]; then exit 0; fi
cp "$here/package.json" "$here/package-lock.json" "$there/"
echo "tools: installing oidc-provider"
cd "$there"
npm ci --ignore-scripts --no-audit --no-fund >install.log 2>&1 || { echo "tools: it failed, see .tools/oidc-provider/install.log"; rm -rf node_modules; }

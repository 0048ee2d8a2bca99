#!/bin/sh
# Installs the accessibility checker that the tests of the pages run, into .tools/axe.
set -eu
here="$(cd "$(dirname "$0")" && pwd)"
there="$here/../../../.tools/axe"
if ! command -v npm >/dev/null 2>&1; then echo "tools: no npm on this machine, so no axe"; exit 0; fi
mkdir -p "$there"
if cmp -s "$here/package-lock.json" "$there/package-lock.json" && [ -d "$there/node_modules/axe-core" ]; then exit 0; fi
cp "$here/package.json" "$here/package-lock.json" "$there/"
echo "tools: installing axe"
cd "$there"
npm ci --ignore-scripts --no-audit --no-fund >install.log 2>&1 || { echo "tools: it failed, see .tools/axe/install.log"; rm -rf node_modules; }

#!/bin/sh
# Installs what the tests (and, with "bench", the measurements) need beside Python, where this machine allows it.
# A missing tool is no error here: the tests that need it say so themselves.
set -u
cd "$(dirname "$0")/.."
mkdir -p .tools

go_tool() { # name, module path with version
    if [ -x ".tools/$1" ] && [ "$(cat ".tools/$1.version" 2>/dev/null)" = "$2" ]; then return; fi
    if ! command -v go >/dev/null 2>&1; then echo "tools: no Go on this machine, so no $1"; return; fi
    echo "tools: building $1 ($2)"
    if GOBIN="$PWD/.tools" GOFLAGS=-mod=mod go install "$2" >".tools/$1.log" 2>&1; then
        echo "$2" >".tools/$1.version"
    else
        echo "tools: building $1 failed, see .tools/$1.log"
    fi
}

apt_tool() { # command, packages...
    command -v "$1" >/dev/null 2>&1 && return
    wanted=$1
    shift
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then echo "tools: no $wanted on this machine"; return; fi
    echo "tools: installing $wanted"
    { apt-get update && apt-get install -y --no-install-recommends "$@"; } >".tools/$wanted.log" 2>&1 ||
        echo "tools: installing $wanted failed, see .tools/$wanted.log"
}

apt_tool redis-server redis-server
apt_tool chromium chromium
apt_tool npm nodejs npm
sh tests/e2e/contract/panva/install.sh
sh tests/e2e/axe/install.sh
go_tool opa "github.com/open-policy-agent/opa@$(cat policies/OPA_VERSION)"
if [ "${1:-}" = bench ]; then go_tool vegeta github.com/tsenart/vegeta/v12@v12.12.0; fi
exit 0

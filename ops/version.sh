#!/usr/bin/env bash
# The version of what is checked out: 1.0.<number of commits>. `set` writes it into the manifests.
set -euo pipefail
cd "$(dirname "$0")/.."
version=1.0.$(git rev-list --count HEAD)
case ${1-} in
  "") echo "$version" ;;
  set)
    old=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
    # Of the workspace, and of the crates in it that name each other.
    sed -i -E "/^version = |^commucat-.*path = /s/\"${old//./\\.}\"/\"$version\"/" Cargo.toml
    cargo update --quiet --workspace --offline
    echo "$version"
    ;;
  *) echo "usage: ops/version.sh [set]" >&2; exit 64 ;;
esac

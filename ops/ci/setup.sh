#!/usr/bin/env bash
# Installs the toolchain that Cargo.toml names, and cargo subcommands that are named here.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
if command -v rustup >/dev/null; then
  rustup toolchain install "$version" --profile minimal --component clippy,rustfmt
  rustup default "$version"
fi
cargo --version
for tool in "$@"; do
  command -v "$tool" >/dev/null || cargo install --locked "$tool"
done

#!/usr/bin/env bash
# Builds programs as packages and images hold them: profile `dist`, and an h2 whose buffers are small
# (docs/decisions/0510). Arguments go to `cargo build`: ops/build.sh -p commucat-server -p commucat-cli
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in patch python3; do
  command -v "$tool" >/dev/null || { echo "ops/build.sh needs $tool" >&2; exit 1; }
done
{ read -r target && read -r h2; } < <(cargo metadata --format-version 1 --locked | python3 -c '
import json, os, sys
metadata = json.load(sys.stdin)
[h2] = [package["manifest_path"] for package in metadata["packages"] if package["name"] == "h2"]
print(metadata["target_directory"], os.path.dirname(h2), sep="\n")')

# The release that Cargo.lock names, with the difference applied. One that is there already stays, for its times
# decide what is compiled anew.
patched=$target/h2-small-buffers
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
cp -r "$h2/." "$fresh"
patch --quiet --strip=1 --directory="$fresh" <ops/h2-buffers.diff ||
  { echo "ops/h2-buffers.diff does not fit ${h2##*/}: renew it, or take it out of ops/build.sh" >&2; exit 1; }
if ! diff --recursive --brief "$fresh" "$patched" >/dev/null 2>&1; then
  rm -rf "$patched"
  mkdir -p "$target"
  cp -r "$fresh" "$patched"
fi

cargo build --locked --profile dist --config "paths = [\"$patched\"]" "$@"

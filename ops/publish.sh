#!/usr/bin/env bash
# Publishes the crates, each after those that it needs. With --list it only prints their order.
# Needs CARGO_REGISTRY_TOKEN. A version that is there already is left out, so that a run that broke off can be repeated.
set -euo pipefail
cd "$(dirname "$0")/.."
order() {
  cargo metadata --format-version 1 --no-deps | python3 -c '
import json, sys
packages = {p["name"]: p for p in json.load(sys.stdin)["packages"] if p["publish"] != []}
done = []
def visit(name):
    if name in done:
        return
    for dependency in packages[name]["dependencies"]:
        if dependency["name"] in packages and dependency["kind"] != "dev":
            visit(dependency["name"])
    done.append(name)
for name in sorted(packages):
    visit(name)
print("\n".join(done))'
}
if [ "${1-}" = --list ]; then
  order
  exit
fi
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
for crate in $(order); do
  if cargo info --quiet --registry crates-io "$crate@$version" >/dev/null 2>&1; then
    echo "$crate $version is there"
  else
    cargo publish --locked -p "$crate"
  fi
done

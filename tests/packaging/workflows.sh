# The workflows, by three readers; the scripts that they call are run by the other parts.

check_workflows() {
  local python bin script
  python=$(python_with packaging tests/packaging/requirements.txt)
  bin=$(dirname "$python")
  "$bin/actionlint" -shellcheck "$(command -v shellcheck)" .github/workflows/*.yml
  "$bin/zizmor" --offline --quiet --min-severity medium .github/workflows
  "$bin/check-jsonschema" --builtin-schema vendor.github-workflows .github/workflows/*.yml >/dev/null
  # actionlint must see a mistake, or it sees nothing.
  printf 'on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: echo ${{ githb.sha }}\n' >"$work/planted.yml"
  if "$bin/actionlint" "$work/planted.yml" >/dev/null; then
    echo "actionlint does not see a planted mistake" >&2
    return 1
  fi
  for script in $(grep -ohE 'ops/[a-z/-]+\.sh' .github/workflows/*.yml | sort -u); do
    [ -x "$script" ] || { echo "a workflow calls $script, which is not there" >&2; return 1; }
  done
  check_versions
  echo "packaging: workflows: $(ls .github/workflows/*.yml | wc -l) files, 0 findings; version $(ops/version.sh), order: $(ops/publish.sh --list | tr '\n' ' ')"
}

# The steps of release.yml that write: on a copy.
check_versions() {
  local copy=$work/copy version
  git clone --quiet --no-hardlinks . "$copy"
  cp -r ops Cargo.toml Cargo.lock "$copy/"
  version=$("$copy/ops/version.sh" set)
  [ "$version" = "1.0.$(git rev-list --count HEAD)" ]
  cargo metadata --quiet --locked --offline --no-deps --format-version 1 --manifest-path "$copy/Cargo.toml" |
    "$python" -c '
import json, sys
versions = {package["version"] for package in json.load(sys.stdin)["packages"]}
assert versions == {sys.argv[1]}, versions' "$version"
  # Every crate is published after those that it needs.
  "$copy/ops/publish.sh" --list | "$python" -c '
import sys, subprocess, json
order = sys.stdin.read().split()
packages = {p["name"]: p for p in json.loads(subprocess.check_output(["cargo", "metadata", "--no-deps", "--format-version", "1"]))["packages"]}
for place, name in enumerate(order):
    for dependency in packages[name]["dependencies"]:
        if dependency["name"] in packages and dependency["kind"] != "dev":
            assert dependency["name"] in order[:place], f"{name} comes before {dependency}"
assert "commucat-server" in order and "commucat-testkit" not in order, order'
}

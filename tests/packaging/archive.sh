# The archive of a release, from the programs that the suites built.

make_archive() {
  [ -d "$work/dist" ] && return
  DIST=$work/dist ops/archive.sh --built dev --no-deb >/dev/null
}

check_archive() {
  local name place
  # What is built for packages uses the h2 with small buffers, and Cargo.lock still names its release.
  ops/build.sh --quiet -p h2 --message-format=json | python3 -c '
import json, sys
built = [line["target"]["src_path"] for line in map(json.loads, sys.stdin) if line["reason"] == "compiler-artifact"]
assert sys.argv[1] + "/h2-small-buffers/src/lib.rs" in built, built' "$target"
  make_archive
  (cd "$work/dist" && sha256sum --check --quiet SHA256SUMS)
  name=$(basename "$work"/dist/commucat-server-linux-*.tar.gz .tar.gz)
  place=$work/unpacked
  mkdir -p "$place"
  tar -xzf "$work/dist/$name.tar.gz" -C "$place"
  "$place/$name/bin/commucat-server" --version >/dev/null
  "$place/$name/bin/commucat-cli" --version >/dev/null
  "$place/$name/bin/commucat" --version >/dev/null
  for file in LICENSE README.md CHANGELOG.md SECURITY.md VERSION install.sh systemd/commucat.service docs/SERVER_GUIDE.md; do
    [ -s "$place/$name/$file" ] || { echo "the archive lacks $file" >&2; return 1; }
  done
  # The same commit and programs give the same bytes.
  DIST=$work/again ops/archive.sh --built dev --no-deb >/dev/null
  cmp "$work/dist/$name.tar.gz" "$work/again/$name.tar.gz"
  python3 - "$work/dist/commucat.cdx.json" <<'PYTHON'
import json, re, sys
from pathlib import Path

bill = json.loads(Path(sys.argv[1]).read_text())
locked = set(re.findall(r'name = "(.*)"\nversion = "(.*)"', Path("Cargo.lock").read_text()))
parts = {(part["name"], part["version"]) for part in bill["components"]}
assert bill["bomFormat"] == "CycloneDX" and parts <= locked, parts - locked
refs = {part["bom-ref"] for part in bill["components"]} | {"commucat"}
for line in bill["dependencies"]:
    assert set(line["dependsOn"]) <= refs and line["ref"] in refs, line
names = {name for name, _ in parts}
assert {"rustls", "snow", "openmls", "commucat-server"} <= names and "proptest" not in names and "commucat-testkit" not in names
print(f"packaging: archive: {len(parts)} components in the SBOM, checksums right, reproducible")
PYTHON
}

#!/usr/bin/env bash
# Builds the programs and packs them: dist/commucat-server-linux-amd64.tar.gz, the same as .deb, an SBOM, checksums.
#   ops/archive.sh [--built PROFILE] [--no-deb]
# `--built dev` packs what `cargo build` has built, and builds nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=dist built='' deb=yes
while [ $# -gt 0 ]; do
  case $1 in
    --built) profile=$2 built=yes; shift ;;
    --no-deb) deb=no ;;
    *) echo "ops/archive.sh: unknown option $1" >&2; exit 64 ;;
  esac
  shift
done
case $(uname -m) in
  x86_64) machine=amd64 ;;
  aarch64) machine=arm64 ;;
  *) machine=$(uname -m) ;;
esac
version=${COMMUCAT_VERSION:-$(ops/version.sh)}
target=$(cargo metadata --format-version 1 --no-deps |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
programs=(commucat-server commucat-cli commucat)
[ -n "$built" ] || ops/build.sh -p commucat-server -p commucat-cli -p commucat-client
place=$target/$profile
[ "$profile" = dev ] && place=$target/debug

dist=${DIST:-dist}
rm -rf "$dist"
mkdir -p "$dist"
name=commucat-server-linux-$machine
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
top=$root/$name
mkdir -p "$top/bin" "$top/systemd" "$top/docs"
for program in "${programs[@]}"; do
  install -m 0755 "$place/$program" "$top/bin/"
  strip "$top/bin/$program"
done
install -m 0644 ops/systemd/commucat.service ops/systemd/commucat.socket "$top/systemd/"
install -m 0644 docs/*.md "$top/docs/"
install -m 0644 LICENSE README.md README.ru.md CHANGELOG.md SECURITY.md commucat.toml .env.sample "$top/"
install -m 0755 ops/install-on-host.sh "$top/install.sh"
echo "$version" >"$top/VERSION"
python3 ops/sbom.py "$version" >"$dist/commucat.cdx.json"
# The same commit gives the same archive, byte for byte, from the same programs.
tar --sort=name --mtime="@$(git log -1 --format=%ct)" --owner=0 --group=0 --numeric-owner \
  -C "$root" -cf - "$name" | gzip -n >"$dist/$name.tar.gz"
if [ "$deb" = yes ]; then
  cargo deb --quiet --no-build --profile "$profile" -p commucat-server --deb-version "$version-1" \
    --output "$dist/commucat_${version}_$machine.deb"
fi
(cd "$dist" && sha256sum -- * >SHA256SUMS)
ls "$dist"

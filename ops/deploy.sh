#!/usr/bin/env bash
# Copies a release to a host over SSH and installs it there: ops/deploy.sh ARCHIVE USER@HOST
# The server runs there as user `commucat`; USER may run the installer as root (root itself, or sudo without password).
#   COMMUCAT_SSH    the command of ssh, with its options     (ssh -o BatchMode=yes)
set -euo pipefail
archive=$1 host=$2
read -ra ssh <<<"${COMMUCAT_SSH:-ssh -o BatchMode=yes}"
digest=$(sha256sum "$archive" | cut -d' ' -f1)
# What arrived is compared before anything of it runs.
"${ssh[@]}" "$host" "cat >/tmp/commucat-$digest.tar.gz" <"$archive"
"${ssh[@]}" "$host" bash -s -- "$digest" <<'REMOTE'
set -euo pipefail
archive=/tmp/commucat-$1.tar.gz
place=$(mktemp -d)
trap 'rm -rf "$place" "$archive"' EXIT
echo "$1  $archive" | sha256sum --check --quiet
tar -xzf "$archive" -C "$place" --strip-components=1 --no-same-owner
root=()
[ "$(id -u)" = 0 ] || root=(sudo -n)
"${root[@]}" "$place/install.sh"
REMOTE

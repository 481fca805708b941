#!/usr/bin/env bash
# Puts a release beside the earlier ones on this host, switches to it, restarts the server, looks whether it is well,
# and goes back if it is not. Run it as root in the directory of an unpacked release (there it is called install.sh).
#
#   COMMUCAT_PREFIX    where releases are kept                    (/opt/commucat)
#   COMMUCAT_RESTART   restarts the server                        (systemctl restart commucat)
#   COMMUCAT_HEALTH    ends with 0 when the server is well        (commucat-cli diagnose --quick --running, as user commucat)
#   COMMUCAT_ATTEMPTS  how often to look, a second apart          (30)
#   COMMUCAT_KEEP      how many releases stay                     (3)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
prefix=${COMMUCAT_PREFIX:-/opt/commucat}
restart=${COMMUCAT_RESTART:-systemctl restart commucat}
health=${COMMUCAT_HEALTH:-runuser -u commucat -- $prefix/current/bin/commucat-cli --config /etc/commucat/commucat.toml diagnose --quick --running}
version=$(cat "$here/VERSION")
release=$prefix/releases/$version

mkdir -p "$prefix/releases"
before=$(readlink "$prefix/current" || true)
if [ "$here" != "$release" ]; then
  rm -rf "$release.new"
  cp -a "$here" "$release.new"
  rm -rf "$release"
  mv "$release.new" "$release"
fi

# The link is replaced in one step: whoever starts the server finds the old release or the new one.
switch() {
  ln -sfn "$1" "$prefix/current.new"
  mv -T "$prefix/current.new" "$prefix/current"
}

is_well() {
  local attempt
  for attempt in $(seq "${COMMUCAT_ATTEMPTS:-30}"); do
    if bash -c "$health" >"$prefix/health.log" 2>&1; then
      echo "$version is well (asked $attempt times)"
      return 0
    fi
    sleep 1
  done
  return 1
}

switch "releases/$version"
if bash -c "$restart" && is_well; then
  # Of the older ones a few stay, for a way back by hand.
  find "$prefix/releases" -mindepth 1 -maxdepth 1 -printf '%T@ %p\n' | sort -rn |
    tail -n +$((${COMMUCAT_KEEP:-3} + 1)) | cut -d' ' -f2- | while read -r old; do
    [ "$old" = "$release" ] || rm -rf "$old"
  done
  exit 0
fi
echo "$version is not well:" >&2
tail -n 20 "$prefix/health.log" >&2 || true
if [ -n "$before" ] && [ "$before" != "releases/$version" ]; then
  switch "$before"
  bash -c "$restart"
  version=${before#releases/}
  is_well || { echo "nor is $version, to which it went back" >&2; exit 2; }
  echo "went back to $version" >&2
fi
exit 1

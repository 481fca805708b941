# The package: built by cargo-deb, installed, started, removed and purged in a Debian root.

check_deb() {
  local root=$work/deb-root package version
  source tests/packaging/root.sh
  source tests/packaging/server.sh
  command -v cargo-deb >/dev/null || cargo install --quiet --locked cargo-deb --root "$target/tools"
  version=$(ops/version.sh)
  package=$work/commucat.deb
  PATH=$target/tools/bin:$PATH cargo deb --quiet --no-build --profile dev -p commucat-server \
    --deb-version "$version-1" --output "$package"
  debian_root "$root"
  cp "$package" "$root/commucat.deb"

  chroot "$root" dpkg --install /commucat.deb >"$work/dpkg" 2>&1 || { cat "$work/dpkg" >&2; return 1; }
  grep -q 'it can never be changed later' "$work/dpkg"
  [ "$(stat -c '%U %a' "$root/var/lib/commucat")" = "$(chroot_owner "$root") 700" ]
  [ "$(stat -c %a "$root/etc/commucat/commucat.toml")" = 640 ]

  server_start_in "$root"
  chroot --userspec=commucat:commucat "$root" commucat-cli --config /etc/commucat/commucat.toml \
    --set "server.listen=127.0.0.1:$port" diagnose --quick --running >"$work/diagnose" || { cat "$work/diagnose" >&2; return 1; }
  grep -q 'the server proved its Noise key' "$work/diagnose"
  server_stop

  chroot "$root" dpkg --remove commucat >/dev/null 2>&1
  [ ! -e "$root/usr/bin/commucat-server" ]
  [ -e "$root/etc/commucat/commucat.toml" ]
  chroot "$root" dpkg --purge commucat >"$work/purge" 2>&1
  [ ! -e "$root/etc/commucat" ]
  # The keys of a domain are not for a package manager to delete.
  [ -s "$root/var/lib/commucat/keys/keyring.json" ]
  grep -q 'Keys and messages stay' "$work/purge"
  echo "packaging: deb: $(du -h "$package" | cut -f1), depends on $(dpkg-deb --field "$package" Depends); installed, started, diagnosed, removed, purged"
}

chroot_owner() {
  local id
  id=$(awk -F: '$1 == "commucat" { print $3 }' "$1/etc/passwd")
  # stat on the outside shows the outside's name of that number.
  getent passwd "$id" | cut -d: -f1 | grep . || echo UNKNOWN
}

# The server as its user, with the package's configuration, on a port of its own.
server_start_in() {
  local root=$1
  started() {
    shift 2 # --data, which the package's configuration names
    exec chroot --userspec=commucat:commucat "$root" /usr/bin/commucat-server --config /etc/commucat/commucat.toml "$@"
  }
  server_start "$work/deb-server" started
}

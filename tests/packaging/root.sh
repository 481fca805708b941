# A Debian root of its own: debian_root DIRECTORY. The downloaded base is kept beside the build.

debian_root() {
  local base=$target/debian-root
  if [ ! -d "$base" ]; then
    rm -rf "$base.new"
    debootstrap --variant=minbase "$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")" "$base.new" >"$work/debootstrap" ||
      { tail -n 5 "$work/debootstrap" >&2; return 1; }
    mv "$base.new" "$base"
  fi
  cp -a --reflink=auto "$base" "$1"
}

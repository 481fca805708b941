about="unit files, image, .deb, archive, deployment, proxies, workflows, monitoring, as an operator uses them"
packages=(
  openssl:openssl systemd-analyze:systemd promtool:prometheus shellcheck:shellcheck
  nginx:nginx haproxy:haproxy debootstrap:debootstrap sshd:openssh-server strip:binutils dpkg-shlibdeps:dpkg-dev curl:curl patch:patch
)

# ./test packaging [PART]...: units, names, workflows, monitoring, archive, deb, image, deploy, proxies
run() {
  local parts=("$@") part
  [ ${#parts[@]} -gt 0 ] || parts=(units workflows monitoring archive deb image deploy proxies)
  [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || need "no-such-command:libnginx-mod-stream"
  binaries
  target=$(target_dir)
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  for part in "${parts[@]}"; do
    # shellcheck source=/dev/null
    source "tests/packaging/$part.sh"
    "check_$part"
  done
}

# The unit files: what the service may do, and that systemd understands every line.

# systemd opens the port and starts the server when the first client comes; that client is served.
check_activation() {
  local port manager answer
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  systemd-socket-activate --listen="127.0.0.1:$port" "$target/debug/commucat-server" \
    --data "$work/activated" --listen "127.0.0.1:$port" >"$work/activated.out" 2>&1 &
  manager=$!
  answer=$(curl --silent --insecure --retry 50 --retry-connrefused --retry-delay 1 "https://127.0.0.1:$port/readyz" || true)
  kill "$manager"
  wait "$manager" || true
  if [ "$answer" != ready ]; then
    cat "$work/activated.out" >&2
    return 1
  fi
}

check_units() {
  local told
  systemd-analyze security --offline=true --no-pager --threshold=20 ops/systemd/commucat.service >"$work/security"
  # It must see a unit that may do everything.
  printf '[Service]\nExecStart=/bin/true\n' >"$work/open.service"
  if systemd-analyze security --offline=true --no-pager --threshold=20 "$work/open.service" >/dev/null 2>&1; then
    echo "systemd-analyze takes a unit without any protection for a safe one" >&2
    return 1
  fi
  # `verify` wants the program to be there.
  mkdir "$work/units"
  sed "s|/usr/bin/commucat-server|$target/debug/commucat-server|" ops/systemd/commucat.service >"$work/units/commucat.service"
  cp ops/systemd/commucat.socket "$work/units/"
  told=$(systemd-analyze verify --man=no --recursive-errors=no "$work"/units/commucat.{service,socket} 2>&1 |
    grep -F "$work/units" || true)
  if [ -n "$told" ]; then
    echo "$told" >&2
    return 1
  fi
  check_activation
  shellcheck ops/*.sh ops/ci/*.sh ops/deb/post* certs/make.sh
  echo "packaging: units: $(tail -n 1 "$work/security" | grep -oE 'level.*[0-9.]+' | tr -d '\n')"
}

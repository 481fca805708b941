# A release deployed over SSH, then a better one, then a broken one, which goes back by itself.

check_deploy() {
  local ssh=$work/ssh ssh_port host_port
  source tests/packaging/server.sh
  host_port=$(free_port)
  make_archive_for_deploy
  prepare_host
  deploy "$first"
  [ "$(cat "$work/host/current/VERSION")" = 1.0.1 ]
  deploy "$second"
  [ "$(cat "$work/host/current/VERSION")" = 1.0.2 ]
  if deploy "$broken" 2>"$work/deploy-log"; then
    echo "a broken release was deployed as if it were well" >&2
    return 1
  fi
  grep -q 'went back to 1.0.2' "$work/deploy-log"
  [ "$(cat "$work/host/current/VERSION")" = 1.0.2 ]
  bash -c "$(host_health)" >/dev/null
  kill -TERM "$(cat "$work/host/pid")" "$sshd"
  echo "packaging: deploy: over SSH 1.0.1, then 1.0.2, then a broken 1.0.3 that went back to 1.0.2"
}

# Three releases: the second one as good as the first, the third one with a server that does not start.
make_archive_for_deploy() {
  local name version top
  source tests/packaging/archive.sh
  make_archive
  name=$(basename "$work"/dist/commucat-server-linux-*.tar.gz .tar.gz)
  for version in 1.0.1 1.0.2 1.0.3; do
    top=$work/releases/$version
    mkdir -p "$top"
    tar -xzf "$work/dist/$name.tar.gz" -C "$top"
    echo "$version" >"$top/$name/VERSION"
    [ "$version" != 1.0.3 ] || printf '#!/bin/sh\necho broken >&2\nexit 78\n' >"$top/$name/bin/commucat-server"
    tar -C "$top" -czf "$work/releases/$version.tar.gz" "$name"
  done
  first=$work/releases/1.0.1.tar.gz second=$work/releases/1.0.2.tar.gz broken=$work/releases/1.0.3.tar.gz
}

host_health() {
  echo "$work/host/current/bin/commucat-cli --data $work/host/data --set server.listen=127.0.0.1:$host_port diagnose --quick --running"
}

# A host that is reached over SSH and has no systemd: the restart is a script of its own.
prepare_host() {
  mkdir -p "$work/host" "$ssh"
  cat >"$work/host/restart" <<SCRIPT
#!/usr/bin/env bash
if [ -f $work/host/pid ] && kill -TERM "\$(cat $work/host/pid)" 2>/dev/null; then
  tail --pid="\$(cat $work/host/pid)" -f /dev/null
fi
setsid $work/host/current/bin/commucat-server --data $work/host/data --listen 127.0.0.1:$host_port \\
  </dev/null >>$work/host/log 2>&1 &
echo \$! >$work/host/pid
SCRIPT
  chmod +x "$work/host/restart"
  ssh-keygen -q -t ed25519 -N "" -f "$ssh/host"
  ssh-keygen -q -t ed25519 -N "" -f "$ssh/id"
  cp "$ssh/id.pub" "$ssh/authorized"
  chmod 700 "$ssh"
  ssh_port=$(free_port)
  mkdir -p /run/sshd
  "$(command -v sshd)" -D -e -f /dev/null -h "$ssh/host" -o Port="$ssh_port" -o ListenAddress=127.0.0.1 \
    -o AuthorizedKeysFile="$ssh/authorized" -o StrictModes=no -o UsePAM=no -o PidFile=none -o PermitRootLogin=yes \
    -o "SetEnv=COMMUCAT_PREFIX=$work/host COMMUCAT_ATTEMPTS=15 COMMUCAT_RESTART=$work/host/restart \"COMMUCAT_HEALTH=$(host_health)\"" \
    >"$ssh/log" 2>&1 &
  sshd=$!
  # The last word of a trap counts as the shell's: sshd may have gone before.
  trap 'kill "$sshd" 2>/dev/null || true; rm -rf "$work"' EXIT
  until (exec 3<>"/dev/tcp/127.0.0.1/$ssh_port") 2>/dev/null; do
    kill -0 "$sshd" || { cat "$ssh/log" >&2; return 1; }
  done
}

deploy() {
  COMMUCAT_SSH="ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=$ssh/known -i $ssh/id -p $ssh_port" \
    ops/deploy.sh "$1" "$(id -un)@127.0.0.1"
}

# A server for a while: server_start DIRECTORY COMMAND..., which sets `port` and `server`; server_stop.

# The command gets the options that place it; it is ready when this returns.
server_start() {
  local place=$1 line
  shift
  mkdir -p "$place"
  rm -f "$place/out"
  mkfifo "$place/out"
  "$@" --data "$place/data" --listen 127.0.0.1:0 >"$place/out" 2>>"$place/log" &
  server=$!
  exec {said}<"$place/out"
  port=
  while IFS= read -r -u "$said" line; do
    echo "$line" >>"$place/stdout"
    case $line in
      "ready "*) port=${line##*:}; break ;;
    esac
  done
  if [ -z "$port" ]; then
    echo "the server did not start:" >&2
    tail -n 5 "$place/log" >&2
    return 1
  fi
}

# A port that nobody has now.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

server_stop() {
  kill -TERM "$server"
  wait "$server"
  exec {said}<&-
}

# The image: Dockerfile and compose file are read by linters; the Dockerfile's steps are played without an engine.

check_image() {
  local python bin own root=$work/image-root image=$work/image
  source tests/packaging/root.sh
  source tests/packaging/server.sh
  python=$(python_with packaging tests/packaging/requirements.txt)
  bin=$(dirname "$python")
  "$bin/hadolint" ops/docker/Dockerfile
  "$bin/check-jsonschema" --builtin-schema vendor.compose-spec ops/docker/compose.yaml >/dev/null
  "$python" tests/packaging/dockerfile.py variables ops/docker/compose.yaml ops/docker/Dockerfile

  # What the stage `build` does after its build, with the programs that the suites built.
  "$python" tests/packaging/dockerfile.py build ops/docker/Dockerfile "$target/debug" "$image" >"$work/steps"
  bash -euo pipefail "$work/steps"
  debian_root "$root"
  cp -a "$image/." "$root/"
  [ "$("$python" tests/packaging/dockerfile.py user ops/docker/Dockerfile)" = 65532:65532 ]

  own=$(free_port)
  play() {
    shift 4 # --data and --listen: the image sets them itself
    eval exec "$("$python" tests/packaging/dockerfile.py entrypoint ops/docker/Dockerfile "$root" "$own")"
  }
  server_start "$work/image-server" play
  eval "$("$python" tests/packaging/dockerfile.py healthcheck ops/docker/Dockerfile "$root" "$own")" >"$work/health" ||
    { cat "$work/health" >&2; return 1; }
  server_stop
  # Nothing answers now, and the check says so.
  if eval "$("$python" tests/packaging/dockerfile.py healthcheck ops/docker/Dockerfile "$root" "$own")" >"$work/health"; then
    echo "the health check passes without a server" >&2
    return 1
  fi
  echo "packaging: image: $(du -sh --apparent-size "$image" | cut -f1) over its base, runs as 65532, health check passes"
}

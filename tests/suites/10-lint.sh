about="formatting, clippy and documentation, warnings as errors"

run() {
  cargo fmt --all --check
  cargo clippy --quiet --workspace --all-targets -- -D warnings
  RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps
  echo "lint: 0 findings"
}

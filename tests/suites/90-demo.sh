about="the demonstration, its figures checked"

run() { cargo run --quiet --release --bin commucat-demo -- --fast --json "$@"; }

# Shortcuts; `./test` is what counts.
default:
    @just --list

# Everything before a push
check: fmt
    ./test lint
    ./test unit

fmt:
    cargo fmt --all

test *ARGS:
    ./test {{ARGS}}

# Rewrite snapshots after looking at them
bless:
    cargo insta review

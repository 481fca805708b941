about="wrong, forged, truncated and oversized input of every kind"

run() { testkit commucat-hostile "$@"; }

about="canaries through every flow, then a search of all that the server keeps"

run() { testkit commucat-privacy "$@"; }

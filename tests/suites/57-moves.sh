about="a backup under traffic, put back after a kill; a copy to PostgreSQL; options: --messages N (200)"
packages=("${SERVICES[@]}")

run() { testkit commucat-moves "$@"; }

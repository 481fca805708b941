about="three domains (SQLite; PostgreSQL and Redis with two nodes), traffic, deaths, cuts, changes of the group from everywhere; options: --seconds N (60), --cut N"
packages=("${SERVICES[@]}")

run() { testkit commucat-domains "$@"; }

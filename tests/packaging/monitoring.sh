# Metrics: what a running server exports, the documented list, the dashboard, the alert rules.

check_monitoring() {
  promtool check rules ops/monitoring/alerts.yml >/dev/null
  promtool check config --syntax-only ops/monitoring/prometheus.yml >/dev/null
  promtool test rules tests/packaging/alerts-test.yml >/dev/null
  source tests/packaging/server.sh
  server_start "$work/monitored" "$target/debug/commucat-server"
  curl --silent --fail --insecure "https://127.0.0.1:$port/metrics" >"$work/metrics"
  # What Prometheus itself reads.
  grep -v '^# EOF' "$work/metrics" | promtool check metrics >"$work/lint" 2>&1 || true
  server_stop
  python3 tests/packaging/metrics.py "$work/metrics"
}

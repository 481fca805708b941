about="domains, clients and faults in virtual time; options: --seeds N (100), --seed S --trace"

run() {
  binaries
  local program
  program=$(target_dir)/debug/commucat-simulation
  "$program" "$@"
  # What it is worth: each planted mistake has to be found.
  [ $# -gt 0 ] || "$program" --plants --seeds 50
}

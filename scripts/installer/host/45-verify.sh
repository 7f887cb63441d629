# --- checks of the node -----------------------------------------------------------------------------------------------

# One row a check: its name, and whether it only reads or runs something. Its function, check_<name> SNAPSHOTTER, dies with
# the reason. An install and an uninstall make all of them, for the snapshotter that has to be in effect from then on; a
# run that finds nothing to change makes those that read.
CHECKS='
cri:reads
plugins:reads
snapshotter:reads
connection:reads
canary:runs
'

# verify_node SNAPSHOTTER reads|runs
verify_node() {
  local check
  for check in $CHECKS; do
    [ "${check#*:}" = "$2" ] || continue
    enter "verify-${check%:*}"
    "check_${check%:*}" "$1"
  done
}

check_cri() { cri_answers || die "containerd's CRI plugin did not load"; }

# What is on the disk is also what runs: containerd has the plugins of our slots that its configuration names, no other.
check_plugins() {
  local named loaded
  named=$(dump_configuration | awk '{ gsub(/[]["'\'']/, "") } $1 ~ /^proxy_plugins\.soci(-b)?$/ { print substr($1, 15) }' | sort -u | tr '\n' ' ')
  loaded=$(ctr plugins ls | awk '$1 == "io.containerd.snapshotter.v1" && $2 ~ /^soci(-b)?$/ { print $2 }' | sort -u | tr '\n' ' ')
  [ "$named" = "$loaded" ] ||
    die "containerd runs with the snapshotters '${loaded% }', but its configuration names '${named% }'"
}

# What another tool wrote up to the restart may stay, as long as ours is in effect with it.
check_snapshotter() {
  local found
  found=$(dump_configuration | snapshotter_in_dump)
  [ "${found:-overlayfs}" = "$1" ] ||
    die "another tool changed containerd's configuration: its snapshotter is ${found:-overlayfs}, not $1"
}

check_connection() { await_connection "$1"; }

check_canary() { run_canary "$1"; }

# verify: the checks that read, for a node that is installed. It prints a result like that of a transaction.
verify() {
  trap print_verified EXIT
  [ -e "$STATE/current/plan.env" ] || die "nothing is installed"
  take_lock 60 "an install or an uninstall is at work"
  read_plan "$STATE/current"
  verify_node "$SNAPSHOTTER" reads
}

print_verified() {
  local status=$? outcome=verified
  if [ "$status" -ne 0 ]; then
    outcome=failed
    CAUSE=${CAUSE:-ended with status $status}
  fi
  say "outcome=$outcome"
  say "step=$STEP"
  say "cause=$CAUSE"
  say "steps=$STEPS end:$(now_ms)"
}

# --- checks of the node -----------------------------------------------------------------------------------------------

# One row a check: its name, whether it only reads or runs something, and what it finds wrong, for the documents. Its
# function, check_<name> SNAPSHOTTER, dies with the reason; paths in it begin with $ROOT. An install and an uninstall
# make all of them, for the snapshotter that has to be in effect from then on: at an uninstall that is the node's own, so
# a check of what only SOCI needs begins with `is_slot "$1" || return 0`. A run that finds nothing to change makes those
# that read.
CHECKS='
cri         reads  containerd runs without its CRI plugin
plugins     reads  containerd runs on another configuration than that of its file
snapshotter reads  another tool changed the snapshotter in the configuration of containerd
connection  reads  the daemon does not answer containerd
canary      runs   a container of the sandbox image does not start
'

# verify_node SNAPSHOTTER reads|runs
verify_node() {
  local checks check
  checks=$(say "$CHECKS" | awk -v does="$2" '$2 == does { print $1 }') || die "the list of checks cannot be read"
  for check in $checks; do
    enter "verify-$check"
    "check_$check" "$1"
  done
}

# Somebody may be restarting containerd at this moment.
check_cri() {
  local tries
  tries=0
  until cri_answers; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || die "containerd's CRI plugin did not load"
    sleep 0.1
  done
}

# What is on the disk is also what runs: containerd has the plugins of our slots that its configuration names, no other.
check_plugins() {
  local dump named loaded
  dump=$(dump_configuration) || die "containerd does not read its configuration"
  named=$(say "$dump" | awk '{ gsub(/[]["'\'']/, "") } $1 ~ /^proxy_plugins\.soci(-b)?$/ { print substr($1, 15) }' | sort -u | tr '\n' ' ')
  loaded=$(ctr plugins ls | awk '$1 == "io.containerd.snapshotter.v1" && $2 ~ /^soci(-b)?$/ { print $2 }' | sort -u | tr '\n' ' ')
  [ "$named" = "$loaded" ] ||
    die "containerd runs with the snapshotters '${loaded% }', but its configuration names '${named% }'"
}

# What another tool wrote up to the restart may stay, as long as ours is in effect with it.
check_snapshotter() {
  local dump found
  dump=$(dump_configuration) || die "containerd does not read its configuration"
  found=$(say "$dump" | snapshotter_in_dump)
  [ "${found:-overlayfs}" = "$1" ] ||
    die "another tool changed containerd's configuration: its snapshotter is ${found:-overlayfs}, not $1"
}

# A daemon of the system, which had chosen SOCI itself, is the system's: an uninstall starts it and warns.
check_connection() { is_soci_original || await_connection "$1"; }

check_canary() { run_canary "$1"; }

# verify: the checks that read, for a node that is installed. It prints a result like that of a transaction.
verify() {
  trap print_verified EXIT
  enter verify
  [ -e "$STATE/journal" ] || die "nothing is installed"
  take_lock 60 "an install or an uninstall is at work"
  read_journal
  [ "$JOURNAL" != committed ] || make_current "$STATE/txn/$TRANSACTION"
  [ -e "$STATE/current/plan.env" ] || die "nothing is installed"
  read_plan "$STATE/current"
  flock -u 9 # a start of containerd waits for whoever holds it
  CONTAINERD=$(containerd_of_unit)
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

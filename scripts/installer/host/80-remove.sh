# --- uninstall --------------------------------------------------------------------------------------------------------
#
# The journal says how far it is; each state is repeated as a whole by whoever goes on (systemd after a kill, `boot`
# after a power cut, the next call): removing, restoring, cleaning, see the head.

# remove [--force]: neither the end of the caller's pod or session nor a kill of the script leaves it half done.
remove() {
  case ${1:-} in '' | --force) ;; *) die "usage: soci-host.sh remove [--force]" ;; esac
  check_recorded
  start_removal "$@" || die "an uninstall is at work already, or systemd cannot start one"
  while :; do
    case $(systemctl is-active "$REMOVAL_UNIT.service" || :) in
      active | activating | deactivating | reloading) sleep 0.2 ;;
      *) break ;;
    esac
  done
  if [ -d "$STATE" ]; then
    # A refusal is the caller's to read; without one the unit was stopped.
    die "$(cat "$STATE/removal" 2>/dev/null || say "the uninstall was interrupted; it goes on at the next boot or call")"
  fi
  say "removed; containerd runs on the node's own configuration"
}

# start_removal [SYSTEMD-RUN OPTION...] [--force]
start_removal() {
  local argument force
  force=''
  for argument; do
    shift
    case $argument in --force) force=--force ;; *) set -- "$@" "$argument" ;; esac
  done
  systemd-run --quiet --collect --unit="$REMOVAL_UNIT" --property=Restart=on-abnormal --property=RestartSec=1 "$@" \
    "$PROGRAM/soci-host.sh" remove-now ${force:+"$force"}
}

remove_now() {
  check_recorded
  if [ ! -d "$STATE" ]; then
    leave_nothing
    return
  fi
  JOURNAL='' TRANSACTION='' KUBELET_WAS=''
  trap removal_ended EXIT
  trap 'exit 143' TERM INT
  rm -f "$STATE/removal"
  exec 2>"$STATE/removal.log"

  enter check
  look_at_installation
  case $JOURNAL in
    none) in_each_slot clear_copies ;;
    removing | restoring | cleaning) ;; # it was decided before
    *)
      check_removable "${1:-}"
      KUBELET_WAS=$(systemctl is-active "$PLAN_kubelet_unit" || :)
      # After a rollback the journal names the change that failed, not what is installed.
      TRANSACTION=$(readlink "$STATE/current") TRANSACTION=${TRANSACTION##*/}
      JOURNAL=removing
      journal removing
      ;;
  esac

  # Whoever failed at it started the kubelet again, which may have made containers under soci meanwhile.
  if [ "$JOURNAL" = removing ] || { [ "$JOURNAL" = restoring ] && containerd_answers; }; then
    enter removing
    take_away_containers
  fi
  if [ "$JOURNAL" = removing ]; then journal restoring; fi
  if [ "$JOURNAL" = restoring ]; then
    enter restoring
    restore_originals
    systemctl daemon-reload
    # Its failure is not passed over: what was installed is put in place again, and the caller is told.
    (
      trap 'name_failed_check $?' EXIT
      restart_containerd && check_old_in_effect
    ) || reinstate
    forget_containers
    journal cleaning
  fi
  if [ "$JOURNAL" = cleaning ]; then
    enter cleaning
    [ "$KUBELET_WAS" != active ] || systemctl start "$PLAN_kubelet_unit"
    in_each_slot clear_copies
    in_each_slot clean_up
    remove_folders "$STATE"
  fi
  rm -rf "$REMOVED"
  mv -T "$STATE" "$REMOVED" # one step: a half deleted journal would tell lies
  trap - EXIT
  leave_nothing
}

removal_ended() {
  local status=$?
  trap - EXIT
  set +e
  if [ "$status" -ne 143 ]; then # else the node is being shut down: it goes on at the next boot
    tail -n 1 "$STATE/removal.log" >"$STATE/removal.next"
    mv -fT "$STATE/removal.next" "$STATE/removal"
    cat "$STATE/removal"
    # As long as no file was touched the node is simply still installed.
    [ "$JOURNAL" != removing ] || journal committed
  fi
  clear_canary
  [ "$KUBELET_WAS" != active ] || systemctl start "$PLAN_kubelet_unit"
  exit "$status"
}

# Without the record there is nothing to go back to, and what is in place still needs its programs.
check_recorded() {
  [ -d "$STATE" ] || [ -d "$REMOVED" ] || ! is_called ||
    die "SOCI is installed, but $STATE with the node's own files is gone: replace the node"
}

# leave_nothing: the last step, also for a boot or a call that comes after a cut in it.
leave_nothing() {
  if [ -e "$REMOVED/originals/files" ]; then
    each_file "$REMOVED/originals" restore_role recovery
    systemctl daemon-reload || :
  fi
  remove_folders "$REMOVED"
  rm -rf "$ROOT/run/soci-cluster" # registry credentials, in memory only
  # This script last: as long as anything else is left, it is there to be called again.
  rm -rf "$PROGRAM/versions" "$REMOVED" "$PROGRAM"
}

# removable [--force]: refuse in words what `remove` would refuse.
removable() {
  [ -d "$STATE" ] || return 0
  look_at_installation
  case $JOURNAL in none | removing | restoring | cleaning) ;; *) check_removable "${1:-}" ;; esac
}

# Called first: takes the lock, rolls back an install that was cut short, and learns what there is to go back to:
# ORIGINAL_DUMP is what containerd makes of the node's own configuration, PREVIOUS the snapshotter in it.
# JOURNAL is then `none` when no install was ever committed.
look_at_installation() {
  take_lock 120 "an install is at work"
  read_journal
  [ "$JOURNAL" != committed ] || make_current "$STATE/txn/$TRANSACTION"
  case $JOURNAL in
    armed | restarting)
      rollback "$TRANSACTION"
      read_journal
      ;;
  esac
  if [ ! -e "$STATE/current/files" ] || [ ! -e "$STATE/originals/files" ]; then
    ! is_called || die "SOCI is installed, but its record in $STATE is incomplete: replace the node"
    JOURNAL=none
    return
  fi
  read_plan "$STATE/current"
  RESTARTS=0
  CONTAINERD=$(containerd_of_unit)
  ORIGINAL_DUMP=$(dump_original) ||
    die "containerd refuses the node's own $(shared_path "$STATE/current"): $(dump_original 2>&1 | tail -n 1)"
  PREVIOUS=$(say "$ORIGINAL_DUMP" | snapshotter_in_dump)
  PREVIOUS=${PREVIOUS:-overlayfs}
}

# What containerd makes of the node's own file, read at its place: imports may be relative.
dump_original() {
  local config original
  config=$(shared_path "$STATE/current")
  original=$STATE/originals/$(field "$STATE/originals" "$config" NAME)
  if [ -f "$original" ] && [ -e "$ROOT$config" ]; then
    # shellcheck disable=SC2016 # the inner shell's parameters
    unshare -m sh -c 'mount --bind "$2" "$3" && exec "$1" --config "$3" config dump' dump \
      "$CONTAINERD" "$original" "$ROOT$config"
  else
    "$CONTAINERD" config default
  fi
}

# check_removable [--force]
check_removable() {
  local lazy
  if [ "$1" != --force ]; then
    lazy=$(mounts)
    [ -z "$lazy" ] || die "lazily loaded containers are running: $(pods_of "$lazy")"
    each_file "$STATE/current" check_not_drifted
  fi
  ! is_soci_original || return 0
  (run_canary "$PREVIOUS") || (bring_pause && run_canary "$PREVIOUS") ||
    die "the sandbox image $PLAN_pause_image does not start under $PREVIOUS and is not to be had"
  clear_canary
}

# The node's own configuration has the snapshotter of our slot: containers, images and snapshots stay as they are.
is_soci_original() { [ "${PREVIOUS-}" = "$PLAN_slot" ]; }

check_not_drifted() {
  ! has_role generated || return 0
  if ! grep -qxF "$FILE_PATH" "$STATE/originals/changed-by-others" 2>/dev/null; then
    case $(sha "$ROOT$FILE_PATH") in "$FILE_NEW" | "$(original_sum)") return 0 ;; esac
  fi
  die "$FILE_PATH was changed by someone since the install; compare it with the node's own in $STATE/originals"
}

# Out of the archive that this kind of node has, or from the image's registry.
bring_pause() {
  local hosts
  clear_canary
  if [ -n "$PLAN_pause_archive" ] && [ -e "$ROOT$PLAN_pause_archive" ]; then
    ctr --namespace k8s.io images import --local --snapshotter "$PREVIOUS" --discard-unpacked-layers=false \
      "$ROOT$PLAN_pause_archive" >/dev/null
  else
    hosts=$(say "$ORIGINAL_DUMP" | hosts_in_dump)
    with_proxies timeout 120 ctr --namespace k8s.io content fetch ${hosts:+--hosts-dir "$hosts"} "$PLAN_pause_image" >/dev/null
  fi
}

# The node's own configuration may name a snapshotter of that name already, and goes on doing so.
our_slots() {
  local name
  for name in $SLOTS; do [ "$name" = "$PREVIOUS" ] || say "$name"; done
}

# in_each_of_ours COMMAND ARGUMENT...
in_each_of_ours() {
  local name
  for name in $(our_slots); do in_slot "$name" "$@"; done
}

# The containers that were created under a slot's snapshotter. containerd cannot delete them once that is gone.
must_list_containers() { list_containers || die "containerd does not answer"; }

# Everything in containerd that is of soci, as long as the snapshotter is there to delete it with. The records of the
# containers stay: by them the kubelet takes the pods' networks down.
take_away_containers() {
  local containers container tries
  ! is_soci_original || return 0
  [ "$KUBELET_WAS" != active ] || systemctl stop "$PLAN_kubelet_unit"
  containers=$(in_each_of_ours must_list_containers)
  for container in $containers; do ctr --namespace k8s.io tasks kill "$container" >/dev/null 2>&1 || :; done
  tries=0
  while some_run "$containers" && [ "$tries" -lt $((STOP_SECONDS * 5)) ]; do
    tries=$((tries + 1))
    sleep 0.2
  done
  for container in $containers; do ctr --namespace k8s.io tasks rm --force "$container" >/dev/null 2>&1 || :; done
  in_each_of_ours check_ended
  forget_images_of_ours
  in_each_of_ours remove_snapshots_for_good
}

check_ended() {
  local left
  unmount_image_volumes
  left=$(all_mounts) || die "the mounts of containers cannot be read"
  [ -z "$left" ] || die "containers did not end: $(pods_of "$left")"
}

# containerd must forget the snapshots before their directory goes, and for that it needs the daemon.
remove_snapshots_for_good() {
  if has_unit && ! daemon_answers; then
    (start_daemon start) || say "$UNIT does not start: its snapshots go with its directory" >&2
  fi
  # A daemon that was restarted just now is not listed otherwise.
  ! daemon_answers || (await_connection "$SNAPSHOTTER") || :
  remove_snapshots
}

# some_run CONTAINERS
some_run() {
  local running container
  running=$(ctr --namespace k8s.io tasks ls 2>/dev/null | awk '$NF == "RUNNING" { print $1 }')
  for container in $1; do
    case "
$running
" in *"
$container
"*) return 0 ;; esac
  done
  return 1
}

# Images whose layers exist only as snapshots of soci, as their blobs were never downloaded, or not kept: the kubelet
# takes them for present and would not pull them again. The last column says: unpacked under the previous snapshotter.
forget_images_of_ours() {
  local incomplete
  incomplete=$(ctr --namespace k8s.io images check --snapshotter "$PREVIOUS" 2>/dev/null | awk -v pause="$PLAN_pause_image" '
    $4 == "incomplete" && $NF == "false" && $1 != pause { print $1 }')
  # shellcheck disable=SC2086 # a list
  [ -z "$incomplete" ] || ctr --namespace k8s.io images rm --sync $incomplete >/dev/null
}

# The node's own configuration is in effect, not only on the disk.
check_old_in_effect() {
  verify_node "$PREVIOUS" reads
  ! is_soci_original || return 0 # the canary would be one of the images that stay
  verify_node "$PREVIOUS" runs
  clear_canary
}

# name_failed_check STATUS: the cause once more, with the check's name, for who reads the last line alone.
name_failed_check() {
  [ "$1" -ne 0 ] || return 0
  case $STEP in verify-*) say "$STEP: $CAUSE" >&2 ;; esac
}

# reinstate: containerd does not run on the node's own configuration, or a check failed, so what was installed comes
# back. Ends in failure.
reinstate() {
  local cause
  cause=$(tail -n 1 "$STATE/removal.log")
  each_file "$STATE/current" put_installed
  systemctl daemon-reload
  in_each_slot start_unit
  (restart_containerd) || die "$cause; and what was installed does not run either: $(tail -n 1 "$STATE/removal.log")"
  journal committed
  die "$cause; SOCI was put in place again"
}

put_installed() {
  [ "$(sha "$ROOT$FILE_PATH")" = "$FILE_NEW" ] || put_new "$1"
}

start_unit() { ! has_unit || systemctl start "$UNIT"; }

# Their snapshots are gone already; without them the kubelet's own clean-up of these pods succeeds.
forget_containers() {
  local containers container
  ! is_soci_original || return 0
  containers=$(in_each_of_ours must_list_containers)
  for container in $containers; do
    ctr --namespace k8s.io containers rm --keep-snapshot "$container" >/dev/null 2>&1 || :
  done
  collect_garbage # with them goes what a daemon that did not start could not be asked to remove
}

# was_managed PATH: whether an install of ours ever wrote it.
was_managed() { [ -n "$(field "$STATE/originals" "$1" OLD)" ]; }

# clean_up: the slot's daemon and its directories. A unit of the operating system goes back to what it was.
clean_up() {
  local mount left
  if was_managed "$ADOPTION"; then
    case $(cat "$STATE/originals/snapshotter-was" 2>/dev/null || say active) in
      active) timeout 150 systemctl restart "$UNIT" || say "$UNIT does not start as the system's own; see journalctl -u $UNIT" ;;
      *) timeout 30 systemctl stop "$UNIT" || : ;;
    esac
    return
  fi
  # A slot without a unit of ours is the operating system's, or nobody's.
  was_managed "$UNIT_FILE" || return 0
  left=$(all_mounts) || die "the mounts of containers cannot be read"
  [ -z "$left" ] || die "containers are still on $SNAPSHOTTER"
  stop_daemon
  awk -v data="$DATA/" 'index($5, data) == 1 { print $5 }' "${MOUNTINFO:-/proc/self/mountinfo}" | sort -r |
    while read -r mount; do umount --lazy "$mount" || :; done
  remove_data
  rm -rf "$ROOT$RUNTIME_DIRECTORY"
}

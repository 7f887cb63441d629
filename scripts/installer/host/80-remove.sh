# --- uninstall --------------------------------------------------------------------------------------------------------
#
# The journal says how far it is; each state is repeated as a whole by whoever goes on (systemd after a kill, `boot`
# after a power cut, the next call):
#   removing    containers, images and snapshots of soci go; the node's files are as installed
#   restoring   the node's own files come back, containerd is restarted once and checked
#   cleaning    containerd runs on the node's own configuration; directories go, and last what would go on at boot

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
  for argument; do
    shift
    case $argument in --force) force=--force ;; *) set -- "$@" "$argument" ;; esac
  done
  systemd-run --quiet --collect --unit="$REMOVAL_UNIT" --property=Restart=on-abnormal --property=RestartSec=1 "$@" \
    "$PROGRAM/soci-host.sh" remove-now ${force:+"$force"}
}

remove_now() {
  force=${1:-}
  check_recorded
  if [ ! -d "$STATE" ]; then
    leave_nothing
    return
  fi
  state='' transaction='' kubelet_was=''
  trap removal_ended EXIT
  trap 'exit 143' TERM INT
  rm -f "$STATE/removal"
  exec 2>"$STATE/removal.log"

  look_at_installation
  case $state in
    none) clear_all_copies ;;
    removing | restoring | cleaning) ;; # it was decided before
    *)
      check_removable
      kubelet_was=$(systemctl is-active kubelet.service || :)
      # After a rollback the journal names the change that failed, not what is installed.
      transaction=$(readlink "$STATE/current") transaction=${transaction##*/}
      state=removing
      journal $state
      ;;
  esac

  # Whoever failed at it started the kubelet again, which may have made containers under soci meanwhile.
  if [ "$state" = removing ] || { [ "$state" = restoring ] && containerd_answers; }; then
    take_away_containers
  fi
  if [ "$state" = removing ]; then
    state=restoring
    journal $state
  fi
  if [ "$state" = restoring ]; then
    restore_originals
    systemctl daemon-reload
    # Its failure is not passed over: what was installed is put in place again, and the caller is told.
    (restart_containerd && check_old_in_effect) || put_back
    forget_containers
    state=cleaning
    journal $state
  fi
  if [ "$state" = cleaning ]; then
    [ "$kubelet_was" != active ] || systemctl start kubelet.service
    for name in $SLOTS; do clean_up "$name"; done
    remove_folders "$STATE"
  fi
  rm -rf "$REMOVED"
  mv -T "$STATE" "$REMOVED" # one step: a half deleted journal would tell lies
  trap - EXIT
  leave_nothing
}

removal_ended() {
  status=$?
  trap - EXIT
  set +e
  if [ "$status" -ne 143 ]; then # else the node is being shut down: it goes on at the next boot
    tail -n 1 "$STATE/removal.log" >"$STATE/removal.next"
    mv -fT "$STATE/removal.next" "$STATE/removal"
    cat "$STATE/removal"
    # As long as no file was touched the node is simply still installed.
    [ "$state" != removing ] || journal committed
  fi
  clear_canary
  [ "$kubelet_was" != active ] || systemctl start kubelet.service
  exit "$status"
}

# Without the record there is nothing to go back to, and what is in place still needs its programs.
check_recorded() {
  [ -d "$STATE" ] || [ -d "$REMOVED" ] || [ ! -e "$ROOT$BOOT_HOOK" ] ||
    die "SOCI is installed, but $STATE with the node's own files is gone: replace the node"
}

# leave_nothing: the last step, also for a boot or a call that comes after a cut in it.
leave_nothing() {
  if [ -d "$REMOVED" ] || [ -e "$ROOT$BOOT_HOOK" ] || [ -e "$ROOT$BOOT_UNIT" ]; then
    drop "$ROOT$BOOT_HOOK"
    drop "$ROOT$BOOT_UNIT"
    remove_folders "$REMOVED"
    systemctl daemon-reload || :
  fi
  # This script last: as long as anything else is left, it is there to be called again.
  rm -rf "$PROGRAM/versions" "$REMOVED" "$PROGRAM"
}

# removable [--force]: refuse in words what `remove` would refuse.
removable() {
  force=${1:-}
  [ -d "$STATE" ] || return 0
  look_at_installation
  case $state in none | removing | restoring | cleaning) ;; *) check_removable ;; esac
}

# Called first: takes the lock, undoes an install that was cut short, and learns what there is to go back to.
# The state is then `none` when no install was ever committed.
look_at_installation() {
  exec 9>"$STATE/lock"
  flock -w 120 9 || die "an install is at work"
  read_journal
  [ "$state" != committed ] || make_current "$STATE/txn/$transaction"
  case $state in
    armed | restarting)
      rollback "$transaction"
      read_journal
      ;;
  esac
  if [ ! -e "$STATE/current/files" ] || [ ! -e "$STATE/originals/files" ]; then
    [ ! -e "$ROOT$BOOT_HOOK" ] || die "SOCI is installed, but its record in $STATE is incomplete: replace the node"
    state=none
    return
  fi
  read_plan "$STATE/current"
  containerd_restarts=0
  containerd=$(systemctl show containerd.service --property=ExecStart | sed -n 's/.*path=\([^ ;]*\).*/\1/p')
  config=$(awk -F "$TAB" '$1 == "containerd" { print $2 }' "$STATE/current/files")
  original_dump=$(dump_original) || die "containerd refuses the node's own $config: $(dump_original 2>&1 | tail -n 1)"
  previous=$(say "$original_dump" | snapshotter_in_dump)
  previous=${previous:-overlayfs}
}

# What containerd makes of the node's own file, read at its place: imports may be relative.
dump_original() {
  name=$(awk -F "$TAB" -v path="$config" '$1 == path { print $5 }' "$STATE/originals/files")
  if [ -e "$STATE/originals/$name" ] && [ -e "$ROOT$config" ]; then
    # shellcheck disable=SC2016 # the inner shell's parameters
    unshare -m sh -c 'mount --bind "$2" "$3" && exec "$1" --config "$3" config dump' dump \
      "$containerd" "$STATE/originals/$name" "$ROOT$config"
  else
    "$containerd" config default
  fi
}

check_removable() {
  if [ "$force" != --force ]; then
    users=$(users)
    [ -z "$users" ] || die "lazily loaded containers are running: $(pods_of "$users")"
    each_file "$STATE/current" check_not_drifted
  fi
  [ "$previous" != "$slot" ] || return 0
  (run_canary "$previous") || (bring_pause && run_canary "$previous") ||
    die "the sandbox image $pause_image does not start under $previous and is not to be had"
  clear_canary
}

check_not_drifted() {
  ! is_generated || return 0
  found=$(sha "$ROOT$path")
  if ! grep -qxF "$path" "$STATE/originals/changed-by-others" 2>/dev/null; then
    case $found in "$new" | "$(original_sum)") return 0 ;; esac
  fi
  die "$path was changed by someone since the install; compare it with the node's own in $STATE/originals"
}

# Out of the EKS archive, or from its registry.
bring_pause() {
  clear_canary
  if [ -e "$ROOT$EKS_PAUSE_ARCHIVE" ]; then
    ctr --namespace k8s.io images import --local --snapshotter "$previous" --discard-unpacked-layers=false \
      "$ROOT$EKS_PAUSE_ARCHIVE" >/dev/null
  else
    hosts=$(say "$original_dump" | awk '$1 == "config_path" && length($3) > 2 { gsub(/["'\'']/, "", $3); print $3; exit }')
    hosts=${hosts%%:*}
    timeout 120 ctr --namespace k8s.io content fetch ${hosts:+--hosts-dir "$hosts"} "$pause_image" >/dev/null
  fi
}

# The containers that were created under a slot's snapshotter. containerd cannot delete them once that is gone.
soci_containers() {
  for name in $(our_slots); do
    slot "$name"
    containers || die "containerd does not answer"
  done
}

# The node's own configuration may name a snapshotter of that name already, and goes on doing so.
our_slots() {
  for name in $SLOTS; do [ "$name" = "$previous" ] || say "$name"; done
}

# Everything in containerd that is of soci, as long as the snapshotter is there to delete it with. The records of the
# containers stay: by them the kubelet takes the pods' networks down.
take_away_containers() {
  [ "$previous" != "$slot" ] || return 0
  [ "$kubelet_was" != active ] || systemctl stop kubelet.service
  containers=$(soci_containers)
  for container in $containers; do ctr --namespace k8s.io tasks kill "$container" >/dev/null 2>&1 || :; done
  tries=0
  while some_run "$containers" && [ "$tries" -lt $((STOP_SECONDS * 5)) ]; do
    tries=$((tries + 1))
    sleep 0.2
  done
  for container in $containers; do ctr --namespace k8s.io tasks rm --force "$container" >/dev/null 2>&1 || :; done
  for name in $(our_slots); do
    slot "$name"
    unmount_image_volumes
    left=$(all_users)
    [ -z "$left" ] || die "containers did not end: $(pods_of "$left")"
  done
  forget_images_of_soci
  for name in $(our_slots); do
    slot "$name"
    # containerd must forget the snapshots before their directory goes, and for that it needs the daemon.
    if { [ -e "$ROOT$unit_file" ] || [ -e "$ROOT$adoption" ]; } && ! snapshotter_answers; then
      snapshotter_action=start
      (start_snapshotter) || say "$unit does not start: containerd keeps the records of its snapshots" >&2
    fi
    remove_snapshots
  done
}

# some_run CONTAINERS
some_run() {
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
forget_images_of_soci() {
  incomplete=$(ctr --namespace k8s.io images check --snapshotter "$previous" 2>/dev/null | awk -v pause="$pause_image" '
    $4 == "incomplete" && $NF == "false" && $1 != pause { print $1 }')
  # shellcheck disable=SC2086 # a list
  [ -z "$incomplete" ] || ctr --namespace k8s.io images rm --sync $incomplete >/dev/null
}

# The old configuration is in effect, not only on disk: the daemon runs without soci, and a sandbox starts.
check_old_in_effect() {
  [ "$previous" != "$slot" ] || return 0
  case $original_dump in
    *'[proxy_plugins.soci]'*) ;; # the node's own
    *)
      ctr plugins ls | awk '$1 == "io.containerd.snapshotter.v1" && $2 ~ /^soci(-b)?$/ { found = 1 } END { exit found }' ||
        die "containerd was restarted and still runs with soci"
      ;;
  esac
  run_canary "$previous"
  clear_canary
}

# put_back: containerd does not run on the node's own configuration, so what was installed comes back. Ends in failure.
put_back() {
  cause=$(tail -n 1 "$STATE/removal.log")
  each_file "$STATE/current" put_installed
  systemctl daemon-reload
  for name in $SLOTS; do
    slot "$name"
    if [ -e "$ROOT$unit_file" ] || [ -e "$ROOT$adoption" ]; then systemctl start "$unit"; fi
  done
  (restart_containerd) || die "$cause; and what was installed does not run either: $(tail -n 1 "$STATE/removal.log")"
  state=committed
  journal $state
  die "$cause; SOCI was put in place again"
}

put_installed() {
  [ "$(sha "$ROOT$path")" = "$new" ] || put_new "$1"
}

# Their snapshots are gone already; without them the kubelet's own clean-up of these pods succeeds.
forget_containers() {
  [ "$previous" != "$slot" ] || return 0
  containers=$(soci_containers)
  for container in $containers; do
    ctr --namespace k8s.io containers rm --keep-snapshot "$container" >/dev/null 2>&1 || :
  done
}

# clean_up SLOT: its daemon and its directories. A unit of the operating system goes back to what it was.
clean_up() {
  slot "$1"
  if grep -q "^$adoption$TAB" "$STATE/originals/files"; then
    case $(cat "$STATE/originals/snapshotter-was" 2>/dev/null || say active) in
      active) timeout 150 systemctl restart "$unit" || say "$unit does not start as the system's own; see journalctl -u $unit" ;;
      *) timeout 30 systemctl stop "$unit" || : ;;
    esac
    return
  fi
  # A slot without a unit of ours is the operating system's, or nobody's.
  grep -q "^$unit_file$TAB" "$STATE/originals/files" || return 0
  [ -z "$(all_users)" ] || die "containers are still on $snapshotter"
  stop_snapshotter
  awk -v data="$data/" 'index($5, data) == 1 { print $5 }' "${MOUNTINFO:-/proc/self/mountinfo}" | sort -r |
    while read -r mount; do umount --lazy "$mount" || :; done
  remove_data
  rm -rf "$ROOT$runtime_directory"
}

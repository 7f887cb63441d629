# --- install: one transaction -----------------------------------------------------------------------------------------

apply() {
  local unfinished
  DIRECTORY=$1
  TRANSACTION=${DIRECTORY##*/}
  JOURNAL='' DOWN_MS=0 RESTARTS=0
  trap finish EXIT
  trap 'exit 143' TERM INT
  exec 2>>"$DIRECTORY/log"
  read_plan "$DIRECTORY"

  enter lock
  take_lock 120 "another install holds $STATE/lock"
  each_file "$DIRECTORY" check_unchanged
  check_idle
  check_copies "$DIRECTORY"
  unfinished=$(read_journal && finish_earlier)
  [ -z "$unfinished" ] || die "$unfinished"

  enter journal
  SNAPSHOTTER_WAS=$(systemctl is-active "$UNIT" || :)
  KUBELET_WAS=''
  mkdir -p "$DIRECTORY/old"
  # Without a committed install, what an earlier try recorded before it was cut short may be incomplete.
  if [ ! -e "$STATE/current" ]; then
    [ ! -L "$STATE/current" ] || die "the record of what is installed, $(readlink "$STATE/current"), is gone: replace the node"
    forget_originals
  fi
  record_node
  each_file "$DIRECTORY" save_old
  set_timer
  JOURNAL=armed # from here on a failure is rolled back
  journal armed

  enter snapshotter
  swap_roles "$BEFORE_RESTART"
  systemctl daemon-reload
  check_idle # once more, just before it
  start_daemon "$PLAN_snapshotter_action"

  if [ "$PLAN_containerd_restart" = 1 ]; then
    enter swap
    # Just before the restart: what is pulled later is pulled by the new daemon.
    incomplete_images >"$DIRECTORY/images-to-pull-again"
    swap_roles "$AFTER_DAEMON"
    check_effect
    enter restart
    journal restarting
    restart_containerd
  fi

  verify_node "$SNAPSHOTTER" reads
  enter carry-over
  [ "$PLAN_is_switch" = 0 ] || unpack_lost_anew # later the heal of a start of the daemon sees to it
  carry_over "$DIRECTORY"
  import_pause
  verify_node "$SNAPSHOTTER" runs

  enter commit
  [ "$PLAN_is_switch" = 0 ] || forget_images
  journal committed
  trap - EXIT TERM INT # nothing is rolled back any more
  free_reserved "$DIRECTORY"
  report committed ''
  clear_canary
  clear_copies
  sweep
  stop_timer
}

check_unchanged() {
  [ "$(sha "$ROOT$FILE_PATH")" = "$FILE_OLD" ] || die "$FILE_PATH changed while the install was being prepared"
}

# A restart of the daemon would break these for good.
check_idle() {
  local busy
  [ "$PLAN_snapshotter_action" = restart ] || return 0
  busy=$(lazy_mounts) || die "the mounts of containers cannot be read"
  [ -z "$busy" ] || die "busy: $(say "$busy" | tr '\n' ' ')"
}

# finish_earlier: end what only needed its last step; say why an earlier change is in the way otherwise.
finish_earlier() {
  case $JOURNAL in
    armed | restarting) say "the transaction $TRANSACTION has not ended" ;;
    removing | restoring | cleaning) say "an uninstall has not ended" ;;
    committed) make_current "$STATE/txn/$TRANSACTION" ;;
  esac
}

# What the first install finds besides files: the state of the system's own daemon, and which directories there are.
record_node() {
  [ ! -e "$STATE/current" ] || return 0
  mkdir -p "$STATE/originals"
  in_each_slot remember_slot
  # Of the first slot, whichever is installed: no operating system has a daemon in the second.
  (in_slot soci print_activity || :) >"$STATE/originals/snapshotter-was"
  sync "$STATE/originals/snapshotter-was"
}

print_activity() { systemctl is-active "$UNIT"; }

remember_slot() {
  remember_folders "$DATA"
  remember_folders "$RUNTIME_DIRECTORY"
}

# remember_folders FOLDER: it and its parents, where they do not exist yet, will be ours to remove.
remember_folders() {
  [ ! -d "$ROOT$1" ] || return 0
  append_line "$1" "$STATE/originals/folders"
  remember_folders "$(dirname "$1")"
}

save_old() {
  local original
  [ "$FILE_OLD" = absent ] || put "$ROOT$FILE_PATH" "$1/old/$FILE_NAME" 0600 0:0
  # The node's own version of a file is kept once, at the first install, for the uninstall.
  if [ -n "$(original_sum)" ]; then
    note_foreign_change
    return
  fi
  # Of an install whose record is lost, what is in place is ours and not the node's.
  original=$FILE_OLD
  ! is_ours "$FILE_PATH" || original=absent
  mkdir -p "$STATE/originals"
  remember_folders "$(dirname "$FILE_PATH")"
  [ "$original" = absent ] || put "$ROOT$FILE_PATH" "$STATE/originals/$FILE_NAME" 0600 0:0
  {
    # On a full disk the short line below may still fit when this does not: then the earlier ones would be lost.
    if [ -e "$STATE/originals/files" ]; then cat "$STATE/originals/files" || return; fi
    printf '%s\t%s\t%s\t%s\t%s\t-\t%s\n' "$FILE_ROLE" "$FILE_PATH" "$FILE_MODE" "$FILE_OWNER" "$original" "$FILE_NAME"
  } >"$STATE/originals/files.next"
  sync "$STATE/originals/files.next"
  mv -fT "$STATE/originals/files.next" "$STATE/originals/files"
}

# What others wrote between two of our installs is in the file that we change now, but not in the original.
note_foreign_change() {
  local installed
  [ -e "$STATE/current/files" ] || return 0
  ! has_role generated || return 0
  installed=$(field "$STATE/current" "$FILE_PATH" NEW)
  # Of a slot that was not in use the current manifest knows nothing; what begins with our words is ours.
  [ -n "$installed" ] || ! is_ours "$FILE_PATH" || return 0
  case $FILE_OLD in "$installed" | "$(original_sum)") return 0 ;; esac
  say "$FILE_PATH" >>"$STATE/originals/changed-by-others"
  sync "$STATE/originals/changed-by-others"
}

# The dead man's timer: should nobody else roll the transaction back, and again should the rollback fail.
set_timer() {
  systemd-run --quiet --collect --on-active="$PLAN_deadline_seconds" --property=Restart=on-failure \
    --property=RestartSec=30 --unit="soci-cluster-deadman-$TRANSACTION" \
    "$PROGRAM/soci-host.sh" rollback "$TRANSACTION" deadline
}

stop_timer() { systemctl stop "soci-cluster-deadman-$TRANSACTION.timer" >/dev/null 2>&1 || :; }

# swap_roles ROLES: the new files of these roles, in their order.
swap_roles() {
  local role
  for role in $1; do each_file "$DIRECTORY" swap "$role"; done
}

# is_changed_of ROLE: whether the current line has that role and its file changes.
is_changed_of() { has_role "$1" && [ "$FILE_OLD" != "$FILE_NEW" ]; }

# swap DIR ROLE
swap() {
  is_changed_of "$2" || return 0
  check_unchanged
  put_new "$1"
}

# Another tool may have written an imported file, which no checksum here covers: containerd has the last word.
check_effect() {
  local dump
  dump=$(dump_configuration | grep -v '^imports = ' | sha256sum)
  [ "${dump%% *}" = "$PLAN_containerd_dump" ] ||
    die "containerd's configuration changed while the install was being prepared: look for a new file among its imports"
}

# The sandbox image out of the node's own archive, where it could not be unpacked otherwise.
import_pause() {
  [ "$PLAN_pause_import" = 1 ] || return 0
  enter pause-image
  ctr --namespace k8s.io images import --local --snapshotter "$SNAPSHOTTER" --discard-unpacked-layers=false \
    "$PLAN_pause_archive" >/dev/null
  ctr --namespace k8s.io images label "$PLAN_pause_image" io.cri-containerd.image=managed io.cri-containerd.pinned=pinned >/dev/null
}

# report OUTCOME CAUSE
report() {
  if {
    say "outcome=$1"
    say "step=$STEP"
    say "cause=$2"
    say "containerd_down_ms=$DOWN_MS"
    say "containerd_restarts=$RESTARTS"
    say "steps=$STEPS end:$(now_ms)"
  } >"$DIRECTORY/result.next" && sync "$DIRECTORY/result.next"; then
    mv -fT "$DIRECTORY/result.next" "$DIRECTORY/result"
  fi
}

finish() {
  local status=$? cause outcome
  trap - EXIT
  set +e
  [ "$status" -ne 0 ] || exit 0
  cause=$(tail -n 1 "$DIRECTORY/log")
  if [ -z "$cause" ] && ! say >>"$DIRECTORY/log"; then cause="no space is left in $STATE"; fi
  free_reserved "$DIRECTORY"
  # Before the rollback starts the daemons again: what they say then would hide why it is made.
  # shellcheck disable=SC2046 # options
  timeout 20 journalctl $(journal_options) -n 6 -o cat --no-pager >"$DIRECTORY/last-words" 2>/dev/null
  outcome=unchanged
  if [ -n "$JOURNAL" ]; then
    clear_canary
    outcome=rolled-back
    [ "$JOURNAL" != restarting ] || RESTARTS=$((RESTARTS + 1))
    if (rollback_now); then stop_timer; else outcome=broken; fi
  fi
  report $outcome "${cause:-ended with status $status}"
  exit 1
}

# sweep: what the committed transaction replaced. When it is cut short, the dead man's timer or a boot does it again.
sweep() {
  local entry
  make_current "$DIRECTORY"
  for entry in "$STATE"/txn/*; do
    # One without a result belongs to another installer that waits for the lock, or is about to.
    [ "$entry" = "$DIRECTORY" ] || [ ! -e "$entry/result" ] || mv -T "$entry" "$entry.gone"
  done
  rm -rf "$STATE"/txn/*.gone # no longer one without a result, should this be cut short
  # A removal that was not synced is undone by a power cut.
  free_reserved "$DIRECTORY"
  rm -f "$STATE"/*.next "$DIRECTORY"/*.next
  forget_versions
}

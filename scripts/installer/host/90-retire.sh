# --- retirement of the daemon that the other slot's has replaced ------------------------------------------------------

# retire SLOT: each step can be done again, so what a kill or a power cut leaves undone, the next call does. The unit
# goes after the data: while it is there the snapshots may be, too, and containerd must forget them before their
# directory goes; it would take them for present when the slot is used again.
# The slot's proxy plugin stays in containerd's configuration: unused it is inert, and to remove it costs a restart.
retire() {
  local left
  take_lock 60 "an install is at work"
  read_journal
  case $JOURNAL in
    committed) make_current "$STATE/txn/$TRANSACTION" ;;
    rolled-back) ;;
    *) die "the transaction $TRANSACTION has not ended" ;;
  esac
  [ -e "$STATE/current/plan.env" ] || die "nothing is installed"
  read_plan "$STATE/current"
  [ "$1" != "$PLAN_slot" ] || die "new containers are created under $1"
  each_file "$STATE/current" check_in_effect
  select_slot "$1"
  left=$(all_mounts) || die "the mounts of containers cannot be read"
  [ -z "$left" ] || die "$(say "$left" | wc -l) containers are still on $1"
  left=$(list_containers) || die "containerd does not answer"
  [ -z "$left" ] || die "containerd has not deleted yet what ended on $1"
  if is_ours "$ADOPTION" || is_ours "$UNIT_FILE"; then retire_daemon; fi
  # The units first: while one is there, the next call needs what it reads.
  each_file "$STATE/originals" restore_retired /etc/systemd/
  systemctl daemon-reload
  each_file "$STATE/originals" restore_retired /
  remove_folders "$STATE"
  forget_versions
  say "the daemon of $1 is retired"
}

# Somebody may have turned containerd back to the old daemon.
check_in_effect() {
  ! is_shared || grep -q "snapshotter *= *[\"']${PLAN_slot}[\"']" "$ROOT$FILE_PATH" ||
    die "$FILE_PATH does not name the snapshotter $PLAN_slot any more"
}

# restore_retired DIR PREFIX: the current line's original, if the file is a daemon's of ours, but not of the one in use.
restore_retired() {
  has_role daemon || return 0
  case $FILE_PATH in "$2"*) ;; *) return 0 ;; esac
  is_ours "$FILE_PATH" || return 0
  [ -z "$(field "$STATE/current" "$FILE_PATH" NEW)" ] || return 0
  restore_from "$1"
}

retire_daemon() {
  local left
  start_daemon start
  remove_snapshots
  left=$(list_snapshots) || die "containerd does not reach the snapshotter $SNAPSHOTTER"
  [ -z "$left" ] || die "snapshots of $SNAPSHOTTER are still in use"
  stop_daemon
  remove_data
  # A socket of the operating system's unit is systemd's.
  is_ours "$ADOPTION" || rm -rf "$ROOT$RUNTIME_DIRECTORY"
}

# --- retirement of the daemon that the other slot's has replaced ------------------------------------------------------

# retire SLOT: each step can be done again, so what a kill or a power cut leaves undone, the next call does. The unit
# goes after the data: while it is there the snapshots may be, too, and containerd must forget them before their
# directory goes; it would take them for present when the slot is used again.
# The slot's proxy plugin stays in containerd's configuration: unused it is inert, and to remove it costs a restart.
retire() {
  local count left file
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
  count=$(all_mounts | wc -l)
  [ "$count" = 0 ] || die "$count containers are still on $1"
  left=$(list_containers) || die "containerd does not answer"
  [ -z "$left" ] || die "containerd has not deleted yet what ended on $1"
  for file in "$ADOPTION" "$UNIT_FILE"; do
    if is_ours "$file"; then retire_daemon "$file"; fi
  done
  if is_ours "$CONFIG_FILE"; then each_file "$STATE/originals" restore_original "$CONFIG_FILE"; fi
  remove_folders "$STATE"
  forget_versions
  say "the daemon of $1 is retired"
}

# Somebody may have turned containerd back to the old daemon.
check_in_effect() {
  ! is_shared || grep -q "snapshotter *= *[\"']${PLAN_slot}[\"']" "$ROOT$FILE_PATH" ||
    die "$FILE_PATH does not name the snapshotter $PLAN_slot any more"
}

# retire_daemon FILE: its unit, or the drop-in that adopts it.
retire_daemon() {
  local left
  start_snapshotter start
  remove_snapshots
  left=$(list_snapshots) || die "containerd does not reach the snapshotter $SNAPSHOTTER"
  [ -z "$left" ] || die "snapshots of $SNAPSHOTTER are still in use"
  stop_snapshotter
  remove_data
  # A socket of the operating system's unit is systemd's.
  [ "$1" = "$ADOPTION" ] || rm -rf "$ROOT$RUNTIME_DIRECTORY"
  each_file "$STATE/originals" restore_original "$1"
  systemctl daemon-reload
}

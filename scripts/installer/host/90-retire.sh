# --- retirement of the daemon that the other slot's has replaced ------------------------------------------------------

# retire SLOT: each step can be done again, so what a kill or a power cut leaves undone, the next call does. The unit
# goes after the data: while it is there the snapshots may be, too, and containerd must forget them before their
# directory goes; it would take them for present when the slot is used again.
# The slot's proxy plugin stays in containerd's configuration: unused it is inert, and to remove it costs a restart.
retire() {
  exec 9>"$STATE/lock"
  flock -w 60 9 || die "an install is at work"
  read_journal
  case $state in
    committed) make_current "$STATE/txn/$transaction" ;;
    rolled-back) ;;
    *) die "the transaction $transaction has not ended" ;;
  esac
  [ -e "$STATE/current/plan.env" ] || die "nothing is installed"
  read_plan "$STATE/current"
  [ "$1" != "$slot" ] || die "new containers are created under $1"
  each_file "$STATE/current" check_in_effect
  slot "$1"
  count=$(all_users | wc -l)
  [ "$count" = 0 ] || die "$count containers are still on $1"
  left=$(containers) || die "containerd does not answer"
  [ -z "$left" ] || die "containerd has not deleted yet what ended on $1"
  for file in "$adoption" "$unit_file"; do
    if is_ours "$file"; then retire_daemon; fi
  done
  if is_ours "$config_file"; then restore_original "$config_file"; fi
  remove_folders "$STATE"
  forget_versions
  say "the daemon of $1 is retired"
}

# Somebody may have turned containerd back to the old daemon.
check_in_effect() {
  [ "$group" != containerd ] || grep -q "snapshotter *= *[\"']${slot}[\"']" "$ROOT$path" ||
    die "$path does not name the snapshotter $slot any more"
}

retire_daemon() {
  snapshotter_action=start
  start_snapshotter
  remove_snapshots
  left=$(snapshots) || die "containerd does not reach the snapshotter $snapshotter"
  [ -z "$left" ] || die "snapshots of $snapshotter are still in use"
  stop_snapshotter
  remove_data
  # A socket of the operating system's unit is systemd's.
  [ "$file" = "$adoption" ] || rm -rf "$ROOT$runtime_directory"
  restore_original "$file"
  systemctl daemon-reload
}

# --- install: one transaction -----------------------------------------------------------------------------------------

# enter STEP: what is at work now, and when it began.
enter() {
  step=$1
  steps="$steps $1:$(now_ms)"
}

apply() {
  directory=$1
  transaction=${directory##*/}
  containerd_down_ms=0 containerd_restarts=0 state=''
  trap finish EXIT
  trap 'exit 143' TERM INT
  exec 2>>"$directory/log"
  read_plan "$directory"

  enter lock
  exec 9>"$STATE/lock"
  flock -w 120 9 || die "another install holds $STATE/lock"
  each_file "$directory" check_unchanged
  check_idle
  read_journal
  # Whatever has not ended is not ours to undo: from here on the state is that of this transaction.
  found=$state state=''
  case $found in
    armed | restarting) die "the transaction $transaction has not ended" ;;
    removing | restoring | cleaning) die "an uninstall has not ended" ;;
    committed) make_current "$STATE/txn/$transaction" ;;
  esac
  transaction=${directory##*/}

  enter journal
  snapshotter_was=$(systemctl is-active "$unit" || :)
  mkdir -p "$directory/old"
  # Without a committed install, what an earlier try recorded before it was cut short may be incomplete.
  if [ ! -e "$STATE/current" ]; then
    [ ! -L "$STATE/current" ] || die "the record of what is installed, $(readlink "$STATE/current"), is gone: replace the node"
    forget_originals
  fi
  record_node
  each_file "$directory" save_old
  if [ "$copy_seconds" = 0 ]; then arm '' "$deadline_seconds"; else arm -copy $((copy_seconds + deadline_seconds)); fi
  state=armed
  journal $state

  enter copy
  copy_layers "$directory"
  check_idle # it may have taken minutes
  if [ "$copy_seconds" != 0 ]; then
    arm '' "$deadline_seconds"
    disarm_copy
  fi

  enter snapshotter
  incomplete_images >"$directory/images-to-pull-again"
  lazy_layers >"$directory/lazy-layers"
  wanted=soci
  each_file "$directory" swap
  systemctl daemon-reload
  check_idle # once more: the looks at the images took their time
  start_snapshotter
  if [ "$snapshotter_action" = restart ] && ! lazy_layers_are_back; then
    await_connection
    forget_images
    # The daemon would not even try to fetch those again; without them it starts afresh.
    [ -n "$(lazy_users)" ] || start_snapshotter
  fi

  if [ "$containerd_restart" = 1 ]; then
    enter swap
    wanted=containerd
    # Just before the restart: what is pulled later is pulled by the new daemon.
    incomplete_images >"$directory/images-to-pull-again"
    each_file "$directory" swap
    check_effect
    enter restart
    journal restarting
    state=restarting
    restart_containerd
    check_snapshotter
  fi

  enter verify
  verify

  enter commit
  [ "$is_switch" = 0 ] || forget_images
  journal committed
  trap - EXIT TERM INT # nothing is undone any more
  free_reserved "$directory"
  report committed ''
  clear_canary
  clear_copies
  sweep
  disarm
}

check_unchanged() {
  [ "$(sha "$ROOT$path")" = "$old" ] || die "$path changed while the install was being prepared"
}

# A restart of the daemon would break these for good.
check_idle() {
  [ "$snapshotter_action" = restart ] || return 0
  users=$(lazy_users | tr '\n' ' ')
  [ -z "$users" ] || die "busy: $users"
}

# What the first install finds besides files: the state of the system's own daemon, and which directories there are.
record_node() {
  [ ! -e "$STATE/current" ] || return 0
  mkdir -p "$STATE/originals"
  (for each in $SLOTS; do
    slot "$each"
    remember_folders "$data"
    remember_folders "$runtime_directory"
  done)
  # Of the first slot, whichever is installed: no operating system has a daemon in the second.
  (slot soci && systemctl is-active "$unit" || :) >"$STATE/originals/snapshotter-was"
  sync "$STATE/originals/snapshotter-was"
}

# Directories that do not exist yet will be ours to remove.
remember_folders() {
  [ -d "$ROOT$1" ] && return
  if ! grep -qxF "$1" "$STATE/originals/folders" 2>/dev/null; then
    say "$1" >>"$STATE/originals/folders"
    sync "$STATE/originals/folders"
  fi
  remember_folders "$(dirname "$1")"
}

save_old() {
  [ "$old" = absent ] || put "$ROOT$path" "$1/old/$name" 0600 0:0
  # The node's own version of a file is kept once, at the first install, for the uninstall.
  if ! cut -f1 "$STATE/originals/files" 2>/dev/null | grep -qxF "$path"; then
    mkdir -p "$STATE/originals"
    remember_folders "$(dirname "$path")"
    [ "$old" = absent ] || put "$ROOT$path" "$STATE/originals/$name" 0600 0:0
    { cat "$STATE/originals/files" 2>/dev/null || :
      printf '%s\t%s\t%s\t%s\t%s\n' "$path" "$mode" "$owner" "$old" "$name"; } >"$STATE/originals/files.next"
    sync "$STATE/originals/files.next"
    mv -fT "$STATE/originals/files.next" "$STATE/originals/files"
  else
    note_foreign_change
  fi
}

# What others wrote between two of our installs is in the file that we change now, but not in the original.
note_foreign_change() {
  [ -e "$STATE/current/files" ] || return 0
  ! is_generated || return 0
  installed=$(awk -F "$TAB" -v path="$path" '$2 == path { print $6 }' "$STATE/current/files")
  # Of a slot that was not in use the current manifest knows nothing; what begins with our words is ours.
  [ -n "$installed" ] || ! is_ours "$path" || return 0
  case $old in "$installed" | "$(original_sum)") return 0 ;; esac
  say "$path" >>"$STATE/originals/changed-by-others"
  sync "$STATE/originals/changed-by-others"
}

# arm SUFFIX SECONDS: the dead man's timer. Should the way back fail, it is tried again.
arm() {
  systemd-run --quiet --collect --on-active="$2" --property=Restart=on-failure --property=RestartSec=30 \
    --unit="soci-cluster-deadman-$transaction$1" "$PROGRAM/soci-host.sh" rollback "$transaction" deadline
}

disarm_copy() {
  [ "$copy_seconds" = 0 ] || systemctl stop "soci-cluster-deadman-$transaction-copy.timer" >/dev/null 2>&1 || :
}

disarm() {
  disarm_copy
  systemctl stop "soci-cluster-deadman-$transaction.timer" >/dev/null 2>&1 || :
}

swap() {
  [ "$group" = "$wanted" ] || return 0
  [ "$old" != "$new" ] || return 0
  check_unchanged
  put_new "$1"
}

# Another tool may have written an imported file, which no checksum here covers: containerd has the last word.
check_effect() {
  [ -n "$containerd_dump" ] || return 0
  dump=$("$containerd_program" --config "$ROOT$containerd_config" config dump | grep -v '^imports = ' | sha256sum)
  [ "${dump%% *}" = "$containerd_dump" ] ||
    die "containerd's configuration changed while the install was being prepared: look for a new file among its imports"
}

# What another tool wrote up to the restart may stay, as long as ours is in effect with it.
check_snapshotter() {
  [ -n "$containerd_dump" ] || return 0
  found=$("$containerd_program" --config "$ROOT$containerd_config" config dump | snapshotter_in_dump)
  [ "$found" = "$snapshotter" ] ||
    die "another tool changed containerd's configuration meanwhile: its snapshotter is ${found:-the default}"
}

# A restarted daemon mounts its layers again, which takes the registry and its credentials. Of an image of whose layers
# one is missing no container could start any more.
lazy_layers_are_back() {
  lazy_layers >"$directory/lazy-layers-now"
  ! grep -qvxF -f "$directory/lazy-layers-now" "$directory/lazy-layers"
}

verify() {
  [ "$containerd_restarts" -gt 0 ] || cri_answers || die "containerd's CRI plugin did not load"
  await_connection
  enter carry-over
  carry_over "$directory"
  enter verify
  if [ -n "$pause_archive" ]; then
    ctr --namespace k8s.io images import --local --snapshotter "$snapshotter" --discard-unpacked-layers=false "$pause_archive" >/dev/null
    ctr --namespace k8s.io images label "$pause_image" io.cri-containerd.image=managed io.cri-containerd.pinned=pinned >/dev/null
  fi
  run_canary "$snapshotter"
}

report() {
  if {
    say "outcome=$1"
    say "step=$step"
    say "cause=$2"
    say "containerd_down_ms=$containerd_down_ms"
    say "containerd_restarts=$containerd_restarts"
    say "steps=$steps end:$(now_ms)"
  } >"$directory/result.next" && sync "$directory/result.next"; then
    mv -fT "$directory/result.next" "$directory/result"
  fi
}

finish() {
  status=$?
  trap - EXIT
  set +e
  [ "$status" -ne 0 ] || exit 0
  cause=$(tail -n 1 "$directory/log")
  if [ -z "$cause" ] && ! say >>"$directory/log"; then cause="no space is left in $STATE"; fi
  free_reserved "$directory"
  # Before the way back starts the daemons again: what they say then would hide why it is taken.
  timeout 20 journalctl -u containerd -u soci-snapshotter -u soci-snapshotter-b -n 6 -o cat --no-pager \
    >"$directory/last-words" 2>/dev/null
  outcome=unchanged
  if [ "$state" != '' ]; then
    clear_canary
    outcome=rolled-back
    if (undo); then disarm; else outcome=broken; fi
    [ "$state" != restarting ] || containerd_restarts=$((containerd_restarts + 1))
  fi
  report $outcome "${cause:-ended with status $status}"
  exit 1
}

# sweep: what the committed transaction replaced. When it is cut short, the dead man's timer or a boot does it again.
sweep() {
  make_current "$directory"
  for entry in "$STATE"/txn/*; do
    # One without a result belongs to another installer that waits for the lock, or is about to.
    [ "$entry" = "$directory" ] || [ ! -e "$entry/result" ] || mv -T "$entry" "$entry.gone"
  done
  rm -rf "$STATE"/txn/*.gone # no longer one without a result, should this be cut short
  # A removal that was not synced is undone by a power cut.
  free_reserved "$directory"
  rm -f "$STATE"/*.next "$directory"/*.next
  forget_versions
}

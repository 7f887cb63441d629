# --- rollback of a transaction ----------------------------------------------------------------------------------------

# rollback ID [deadline]
rollback() {
  local reason
  read_journal
  if [ "$TRANSACTION" != "$1" ]; then
    say "the journal is about ${TRANSACTION:-nothing}, not about $1"
    return
  fi
  # Only of one that was still at work can it be said that it took too long.
  reason=interrupted
  if [ "$(systemctl is-active "soci-cluster-txn-$1.service" || :)" = active ]; then reason=${2:-interrupted}; fi
  systemctl kill --signal=KILL "soci-cluster-txn-$1.service" 2>/dev/null || :
  take_lock 30 "another install or an uninstall is at work"
  read_journal
  DIRECTORY=$STATE/txn/$1 STEP=$reason DOWN_MS=0 RESTARTS=0
  case $JOURNAL in armed | restarting | committed) ;; *) return 0 ;; esac
  read_plan "$DIRECTORY"
  if [ "$JOURNAL" = committed ]; then
    clear_copies
    sweep
    return
  fi
  rollback_now
  stop_timer
  report rolled-back "the install was cut short, or did not end in $PLAN_deadline_seconds seconds"
}

# rollback_now: the node's old files and daemons back. Called with journal and plan read, and the lock held.
# When a file cannot be put back, the journal goes on to say so, and the timer, a boot or the next install tries again.
rollback_now() {
  local is_unreferenced left
  free_reserved "$DIRECTORY"
  # Records of snapshots whose directory is gone would stay in containerd for good, and in the way of the next install.
  is_unreferenced=0
  if [ "$JOURNAL" = armed ] || [ -z "$(ls "$ROOT$DATA/snapshotter/snapshots" 2>/dev/null)" ]; then is_unreferenced=1; fi
  # Once containerd does not know the snapshotter any more, or its daemon is stopped again, it cannot delete what was
  # created under it meanwhile.
  if [ "$JOURNAL" = restarting ] && containerd_answers && daemon_answers &&
    { [ "$PLAN_slot_is_new" = 1 ] || { [ "$PLAN_is_switch" = 1 ] && [ "$SNAPSHOTTER_WAS" != active ]; }; }; then
    remove_containers
    remove_snapshots
    left=$(list_snapshots) && [ -z "$left" ] && is_unreferenced=1
  fi
  restore_files "$DIRECTORY" || return 1
  systemctl daemon-reload || :
  if [ "$JOURNAL" = restarting ]; then restart_containerd; fi
  restore_daemon
  # A directory that was not there before this first install.
  if [ "$SNAPSHOTTER_WAS" != active ] && [ "$is_unreferenced" = 1 ] && [ ! -e "$STATE/current" ] &&
    grep -qxF "$DATA" "$STATE/originals/folders" 2>/dev/null; then
    (remove_data) || :
  fi
  clear_copies
  forget_originals
  journal rolled-back
}

restore_daemon() {
  local busy
  if [ "$SNAPSHOTTER_WAS" = active ]; then
    # Back to the old daemon, unless containers came to depend on the new one meanwhile.
    if [ "$PLAN_snapshotter_action" = restart ] && busy=$(lazy_mounts) && [ -z "$busy" ]; then
      systemctl restart "$UNIT" || :
    fi
  elif [ "$PLAN_is_switch" = 0 ]; then
    systemctl --no-block restart "$UNIT" || : # containerd depended on it already: it was between two starts
  else
    stop_daemon
  fi
}

# restore_files DIR: the old files back, in the reverse order of roles: containerd's own file first, and what starts
# `boot` last, so that a power cut meanwhile finds either something that resumes, or nothing that matters.
restore_files() {
  local role failed
  [ -s "$1/files" ] || return 1
  failed=0
  for role in $(reversed "$BEFORE_RESTART $AFTER_DAEMON"); do each_file "$1" restore "$role"; done
  return $failed
}

# reversed WORDS
reversed() {
  local word words
  words=''
  for word in $1; do words="$word $words"; done
  say "$words"
}

# restore DIR ROLE: the transaction's old file; `failed` of the caller says that one is not back.
restore() {
  is_changed_of "$2" || return 0
  if is_of_others; then
    say "$FILE_PATH was changed by someone else meanwhile and is left as it is" >&2
  else
    restore_from "$1/old" || failed=1
  fi
}

# What another installer wrote into containerd's file meanwhile stays, unless it was made from ours.
is_of_others() {
  local found
  rm -f "$ROOT$FILE_PATH.soci-cluster-new"
  found=$(sha "$ROOT$FILE_PATH")
  is_shared || return 1
  case $found in "$FILE_NEW" | "$FILE_OLD" | absent) return 1 ;; esac
  ! grep -qF /run/soci-snapshotter "$ROOT$FILE_PATH"
}

# After a failed first install nothing of ours is in place: the next one looks at the node afresh. Only directories that
# are not empty yet are still ours to remove.
forget_originals() {
  local folder
  [ ! -L "$STATE/current" ] || return 0
  remove_folders "$STATE"
  find "$STATE/originals" -mindepth 1 ! -name folders -delete 2>/dev/null || :
  [ -e "$STATE/originals/folders" ] || return 0
  while read -r folder; do [ ! -d "$ROOT$folder" ] || say "$folder"; done \
    <"$STATE/originals/folders" >"$STATE/originals/folders.next"
  if [ -s "$STATE/originals/folders.next" ]; then
    sync "$STATE/originals/folders.next"
    mv -fT "$STATE/originals/folders.next" "$STATE/originals/folders"
  else
    rm -rf "$STATE/originals"
  fi
}

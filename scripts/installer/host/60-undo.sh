# --- the way back of a transaction ------------------------------------------------------------------------------------

rollback() {
  read_journal
  if [ "$transaction" != "$1" ]; then
    say "the journal is about ${transaction:-nothing}, not about $1"
    return
  fi
  # Only of one that was still at work can it be said that it took too long.
  [ "$(systemctl is-active "soci-cluster-txn-$1.service" || :)" = active ] || set -- "$1"
  systemctl kill --signal=KILL "soci-cluster-txn-$1.service" 2>/dev/null || :
  exec 9>"$STATE/lock"
  flock -w 30 9 || die "another install or an uninstall is at work"
  read_journal
  directory=$STATE/txn/$1 step=${2:-interrupted} containerd_down_ms=0 containerd_restarts=0
  case $state in armed | restarting | committed) ;; *) return 0 ;; esac
  read_plan "$directory"
  if [ "$state" = committed ]; then
    clear_copies
    sweep
    return
  fi
  undo
  disarm
  report rolled-back "the install was cut short, or did not end in $deadline_seconds seconds"
}

# undo: the node's old files and daemons back. Called with the journal read and the lock held.
# When a file cannot be put back, the journal goes on to say so, and the timer, a boot or the next install tries again.
undo() {
  free_reserved "$directory"
  # Records of snapshots whose directory is gone would stay in containerd for good, and in the way of the next install.
  is_forgotten=0
  if [ "$state" = armed ] || [ -z "$(ls "$ROOT$data/snapshotter/snapshots" 2>/dev/null)" ]; then is_forgotten=1; fi
  # Once containerd does not know the snapshotter any more, or its daemon is stopped again, it cannot delete what was
  # created under it meanwhile.
  if [ "$state" = restarting ] && containerd_answers && snapshotter_answers &&
    { [ "$slot_is_new" = 1 ] || { [ "$is_switch" = 1 ] && [ "$snapshotter_was" != active ]; }; }; then
    remove_containers
    remove_snapshots
    left=$(snapshots) && [ -z "$left" ] && is_forgotten=1
  fi
  restore_files "$directory" || return 1
  systemctl daemon-reload || :
  if [ "$state" = restarting ]; then restart_containerd; fi
  case $snapshotter_was in
    active)
      # Back to the old daemon, unless containers came to depend on the new one meanwhile.
      if [ "$snapshotter_action" = restart ] && [ -z "$(lazy_users)" ]; then
        systemctl restart "$unit" || :
      fi
      ;;
    *)
      # containerd depended on it already: it was between two starts.
      if [ "$is_switch" = 0 ]; then
        systemctl --no-block restart "$unit" || :
      else
        stop_snapshotter
      fi
      # A directory that was not there before this first install.
      if [ "$is_forgotten" = 1 ] && [ ! -e "$STATE/current" ] && grep -qxF "$data" "$STATE/originals/folders" 2>/dev/null
      then (remove_data) || :; fi
      ;;
  esac
  clear_copies
  forget_originals
  state=rolled-back
  journal $state
}

# restore_files DIR: the old files back, in reverse: containerd's own file first, and what starts `boot` after it,
# so that a power cut on the way back finds either something that resumes, or nothing that matters.
restore_files() {
  [ -s "$1/files" ] || return 1
  failed=0
  while IFS="$TAB" read -r group path mode owner old new name; do
    restore "$1" || failed=1
  done <<END
$(tac "$1/files")
END
  return $failed
}

# restore DIR: the transaction's old file. What another installer wrote into containerd's meanwhile stays, unless it was
# made from ours.
restore() {
  [ "$old" != "$new" ] || return 0
  rm -f "$ROOT$path.soci-cluster-new"
  found=$(sha "$ROOT$path")
  if [ "$group" = containerd ] && [ "$found" != "$new" ] && [ "$found" != "$old" ] && [ "$found" != absent ] &&
    ! grep -qF /run/soci-snapshotter "$ROOT$path"; then
    say "$path was changed by someone else meanwhile and is left as it is" >&2
    return
  fi
  restore_from "$1/old"
}

# After a failed first install nothing of ours is in place: the next one looks at the node afresh. Only directories that
# are not empty yet are still ours to remove.
forget_originals() {
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

# --- before every start of containerd ---------------------------------------------------------------------------------

boot() {
  if [ ! -d "$STATE" ]; then
    [ ! -d "$REMOVED" ] || leave_nothing
    return 0
  fi
  exec 9>"$STATE/lock"
  # Held by an install or uninstall: its own restart of containerd is why we run. By anything else: it ends soon.
  if ! flock -n 9; then
    read_journal
    case $state in committed | rolled-back) flock -w 20 9 || return 0 ;; *) return 0 ;; esac
  fi
  read_journal
  case $state in
    armed | restarting)
      say "soci-cluster: the transaction $transaction was cut short; its files are put back"
      free_reserved "$STATE/txn/$transaction"
      restore_files "$STATE/txn/$transaction"
      forget_originals
      journal rolled-back
      systemctl daemon-reload || :
      ;;
    removing)
      say "soci-cluster: an uninstall was cut short; it goes on once containerd runs"
      start_removal --no-block --property=After=containerd.service
      ;;
    restoring | cleaning)
      say "soci-cluster: an uninstall was cut short; the node's own files are put back, the rest follows"
      restore_originals
      systemctl daemon-reload || :
      start_removal --no-block --property=After=containerd.service
      ;;
    committed)
      directory=$STATE/txn/$transaction
      each_file "$directory" reapply_if_original
      read_plan "$directory"
      sweep
      ;;
    *) if [ -e "$STATE/current/files" ]; then each_file "$STATE/current" reapply_if_original; fi ;;
  esac
}

reapply_if_original() {
  [ "$group" = containerd ] && [ "$new" != absent ] || return 0
  found=$(sha "$ROOT$path")
  [ "$found" != "$new" ] || return 0
  if [ "$found" = "$(original_sum)" ]; then
    say "soci-cluster: $path was written back to the node's original; the installed one is put in place"
    put_new "$1"
  else
    say "soci-cluster: $path was changed since the install and is left as it is"
  fi
}

# In reverse, too: containerd's own file first. What calls `boot` stays to the very end: it is what finishes an
# uninstall that was cut short.
restore_originals() {
  tac "$STATE/originals/files" >"$STATE/originals/files.reversed"
  while IFS="$TAB" read -r path mode owner old name; do
    case $path in "$BOOT_UNIT" | "$BOOT_HOOK") ;; *) restore_from "$STATE/originals" ;; esac
  done <"$STATE/originals/files.reversed"
}

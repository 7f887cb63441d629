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
    case $JOURNAL in committed | rolled-back) flock -w 20 9 || return 0 ;; *) return 0 ;; esac
  fi
  read_journal
  case $JOURNAL in
    armed | restarting)
      say "soci-cluster: the transaction $TRANSACTION was cut short; it is rolled back"
      free_reserved "$STATE/txn/$TRANSACTION"
      restore_files "$STATE/txn/$TRANSACTION"
      forget_originals
      journal rolled-back
      systemctl daemon-reload || :
      ;;
    removing)
      say "soci-cluster: an uninstall was cut short; it goes on once containerd runs"
      resume_removal
      ;;
    restoring | cleaning)
      say "soci-cluster: an uninstall was cut short; the node's own files are put back, the rest follows"
      restore_originals
      systemctl daemon-reload || :
      resume_removal
      ;;
    committed)
      DIRECTORY=$STATE/txn/$TRANSACTION
      each_file "$DIRECTORY" reapply_if_original
      read_plan "$DIRECTORY"
      sweep
      ;;
    *) if [ -e "$STATE/current/files" ]; then each_file "$STATE/current" reapply_if_original; fi ;;
  esac
}

resume_removal() {
  [ ! -e "$STATE/current/plan.env" ] || read_plan "$STATE/current"
  start_removal --no-block --property=After="$PLAN_containerd_unit"
}

reapply_if_original() {
  local found
  is_shared || return 0
  [ "$FILE_NEW" != absent ] || return 0
  found=$(sha "$ROOT$FILE_PATH")
  [ "$found" != "$FILE_NEW" ] || return 0
  if [ "$found" = "$(original_sum)" ]; then
    say "soci-cluster: $FILE_PATH was written back to the node's original; the installed one is put in place"
    put_new "$1"
  else
    say "soci-cluster: $FILE_PATH was changed since the install and is left as it is"
  fi
}

# restore_originals: the node's own files, in the reverse order of roles, too. What calls `boot` stays to the very end: it
# is what finishes an uninstall that was cut short.
restore_originals() {
  local role
  for role in $(reversed "$BEFORE_RESTART $AFTER_DAEMON"); do
    [ "$role" = recovery ] || each_file "$STATE/originals" restore_role "$role"
  done
}

# restore_role DIR ROLE: the current line's original.
restore_role() {
  has_role "$2" || return 0
  restore_from "$1"
}

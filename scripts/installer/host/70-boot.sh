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
      say "soci-cluster: the transaction $TRANSACTION was cut short; its files are put back"
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

# --- after each end of a daemon ---------------------------------------------------------------------------------------

# mend-daemon: for the daemon's unit. With a file that others changed the daemon may not start, and then no container
# starts on the node, the installer's own neither: so nobody else can put the file back. What they wrote is kept.
mend_daemon() {
  local directory
  ! had_started && [ "${SERVICE_RESULT:-}" = exit-code ] && [ -e "$STATE/journal" ] || return 0
  exec 9>"$STATE/lock"
  flock -n 9 || return 0 # an install or an uninstall sees to it; after a look the next end of the daemon does
  read_journal
  case $JOURNAL in
    committed) directory=$STATE/txn/$TRANSACTION ;;
    rolled-back) directory=$STATE/current ;;
    *) return 0 ;;
  esac
  [ ! -e "$directory/files" ] || each_file "$directory" put_back_of_daemon
  in_each_slot reload_unit
}

# note_start: a daemon that has come up ends for other reasons than its files.
note_start() { (umask 077 && mkdir -p "$STARTED" && : >"$STARTED/${INVOCATION_ID:-unknown}") || :; }

had_started() { rm "$STARTED/${INVOCATION_ID:-unknown}" 2>/dev/null; }

# One file that cannot be put back keeps no other from it.
put_back_of_daemon() {
  has_role daemon && [ "$FILE_NEW" != absent ] && [ "$(sha "$ROOT$FILE_PATH")" != "$FILE_NEW" ] || return 0
  if [ -f "$ROOT$FILE_PATH" ]; then
    mkdir -p "$STATE/replaced" && cp -p "$ROOT$FILE_PATH" "$STATE/replaced/$FILE_NAME" || :
  fi
  append_line "$FILE_PATH" "$STATE/put-back" || : # for the agent, which tells of it
  put_new "$1" || return 0
  say "soci-cluster: the daemon does not start, and $FILE_PATH was changed by others; the installed one is put back"
}

# Also after an earlier call that was cut short.
reload_unit() {
  [ "$(systemctl show "$UNIT" --property=NeedDaemonReload --value || :)" != yes ] || systemctl daemon-reload || :
}

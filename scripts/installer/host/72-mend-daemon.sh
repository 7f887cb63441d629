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
  put_new "$1" || return 0
  append_line "$FILE_PATH" "$STATE/put-back" || : # for the agent, which tells of it
  say "soci-cluster: the daemon does not start, and $FILE_PATH was changed by others; the installed one is put back"
}

# Also after an earlier call that was cut short.
reload_unit() {
  [ "$(systemctl show "$UNIT" --property=NeedDaemonReload --value || :)" != yes ] || systemctl daemon-reload || :
}

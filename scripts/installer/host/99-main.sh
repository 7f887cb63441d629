# --- the command line -------------------------------------------------------------------------------------------------

status() {
  read_journal
  say "journal: ${JOURNAL:-none} ${TRANSACTION}"
  say "files:"
  [ ! -e "$STATE/current/files" ] || each_file "$STATE/current" print_file
  in_each_slot print_slot
  [ ! -e "$STATE/current/plan.env" ] || read_plan "$STATE/current"
  say "containerd: $(systemctl is-active "$PLAN_containerd_unit" || :)"
}

print_file() { say "$FILE_PATH$TAB$FILE_NEW"; }

print_slot() {
  say "snapshotter $SNAPSHOTTER: $(systemctl is-active "$UNIT" || :), lazily loaded containers: $(lazy_mounts | wc -l)"
}

main() {
  local verb
  verb=${1:-status}
  [ $# -eq 0 ] || shift
  default_plan
  know_kind_of_older_plan # until a plan is read
  case $verb in
    apply | boot | heal | mounts | remove | removable | retire | rollback | status | verify) "$verb" "$@" ;;
    remove-now) remove_now "$@" ;;
    heal-later) heal_later ;; # the daemon's unit
    mend-daemon) mend_daemon ;; # likewise
    clear-cut-pulls) clear_cut_pulls_of_slot ;; # the agent's, after a pull that failed
    clear-copies) clear_copies_left ;; # the agent's, of what a cut install left
    *) die "usage: soci-host.sh apply DIR | boot | heal [--again] | rollback ID | verify | remove [--force] |
       removable [--force] | status | mounts [SLOT [all]] | retire SLOT" ;;
  esac
}

# Tests call one function: with `noop` this file only defines them.
[ "${SOCI_HOST_MAIN:-}" = noop ] || main "$@"

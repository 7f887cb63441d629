# --- the command line -------------------------------------------------------------------------------------------------

status() {
  read_journal
  say "journal: ${state:-none} ${transaction}"
  say "files:"
  [ ! -e "$STATE/current/files" ] || cut -f2,6 "$STATE/current/files"
  for name in $SLOTS; do
    slot "$name"
    say "snapshotter $name: $(systemctl is-active "$unit" || :), lazily loaded containers: $(lazy_users | wc -l)"
  done
  say "containerd: $(systemctl is-active containerd.service || :)"
}

verb=${1:-status}
[ $# -eq 0 ] || shift
case $verb in
  apply | boot | rollback | remove | removable | status | users | retire) "$verb" "$@" ;;
  remove-now) remove_now "$@" ;;
  clear-copies) clear_copies_left ;; # the agent's, of what a cut install left
  *) die "usage: soci-host.sh apply DIR | boot | rollback ID | remove [--force] | removable [--force] | status |
       users [SLOT [all]] | retire SLOT" ;;
esac

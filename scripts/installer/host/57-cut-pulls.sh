# --- what is left of pulls that were cut short ---------------------------------------------------------------------------

# clear_cut_pulls: what is left in containerd's content store of pulls that were cut short. Where it pulls in parallel and
# keeps blobs, the daemon appends to what is there (soci/store/store.go of awslabs/soci-snapshotter, Push): the layer has
# the wrong size then, and for a day no pull of an image with it succeeds.
clear_cut_pulls() {
  local folder
  for folder in $(ingests_of_daemon); do
    if [ -e "$folder/data" ] && ! is_open "$folder"; then
      say "what a pull that was cut short left of a layer is removed: $(sed 's,.*/,,' "$folder/ref")" >&2
      # The name last: by it the rest would be found again.
      { rm -f "$folder/data" && rm -rf "$folder"; } || :
    fi
  done
}

# clear-cut-pulls: a registry that goes away cuts pulls short, too.
clear_cut_pulls_of_slot() {
  [ -e "$STATE/current/plan.env" ] || return 0
  read_plan "$STATE/current"
  clear_cut_pulls
}

# ingests_of_daemon: where layers are being written in the kubelet's namespace by a daemon, or were. The names of
# containerd's own writes begin with a kind, as in layer-sha256:...
ingests_of_daemon() {
  local root
  root=$(dump_configuration 2>/dev/null | root_in_dump)
  [ -n "$root" ] || return 0
  grep -ls '^k8s\.io/[0-9]*/sha256:[0-9a-f]*$' "$ROOT$root"/io.containerd.content.v1.content/ingest/*/ref | sed 's,/ref$,,' || :
}

# is_open FOLDER: containerd has the file open until it is complete and has its digest's name.
is_open() { find /proc/[0-9]*/fd -lname "$(readlink -f "$1")/data" 2>/dev/null | grep -q .; }

# A pull in parallel has no snapshot in containerd's list before a layer is complete. The daemon has the layer open below
# its own directory until it is unpacked, and where blobs are kept, containerd has it open, too.
is_pulling_in_parallel() {
  local folder
  ! find /proc/[0-9]*/fd -lname "$(readlink -f "$ROOT$DATA")/unpack/*" 2>/dev/null | grep -q . || return 0
  for folder in $(ingests_of_daemon); do ! is_open "$folder" || return 0; done
  return 1
}

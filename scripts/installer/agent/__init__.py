"""The installer's agent: it reads a node, decides, prepares, has the host script commit, tells the outcome.

Standard library only: it runs in a stock Python image. Its rooms:

    __main__    a run of the program: present, absent, leave
    settings    what was asked for
    detect      what node this is, and whether it can be had; `kinds`: what differs from kind to kind;
                `units`: what systemd says of a unit
    kubelet     the kubelet as it runs: its unit, its sockets; `credential_providers`: its plugins;
                `credential_helper`: who asks them for the daemon
    plan        what differs from the wanted state; `managed`: the files, whose texts come from
                `containerd_config`, `soci_config`, `daemon_environment` and `nodeadm`; `tuning`: what
                the node's hardware makes of these; `slots`, `adoption`: the daemon and its unit
    soci_registries  what the daemon is told of registries; `containerd_registries`: how containerd pulls
    images      what the switch does about each image; `carry`: layers that only lie unpacked on the disk
    install     what is done, in which order; `release`: the download, `release_blob`: out of a registry,
                `registry_auth`: with which credentials, `credential`: what one is, `node_http`: on which way;
                `transaction`: the host script's part
    heal        what a start of the daemon left broken; `drift`: what others changed
    pull_secrets  hands the secrets of the node's pods to the daemon, in a process of its own;
                `kubelet_identity`: as whom it asks, `reflector`: how, `pull_secret_content`: what they say,
                `image_reference`: of which images,
                `pull_secret_choice` and `image_access`: which one is kept of several for a registry,
                `pull_secret_files`: what it leaves
    lazy        who must not be disturbed; `drain`: how they are moved elsewhere
    stalled_rollout  one that dead nodes hold up
    uninstall   how SOCI leaves a node; `owner`: whose node it is
    serving     whether SOCI serves the node now: only then it keeps its version label
    tell        what the user hears; `api`: the server, `marks`: of the node there, `log`: of the pod
    remedies    what to do about what both the condition and the doctor tell
    doctor      what is wrong with the node, without a change; `doctor_checks`: a check each, `doctor_images`:
                how each image is served, `daemon_metrics`: how much of it is here by now, which reads
                failed; `daemon_words`: what a daemon says of images and layers
    reads       which files a container reads until it is ready; `file_reads`: as the kernel tells
    bench       what soci-bench measures on the node
    watch       the small process that stays
    host        the node's files and commands; `ctr`: its containerd's client; `errors`: why a run ends;
                `block_yaml`: the YAML of Kubernetes' files
"""

"""``soci-index``: gives images their SOCI index.

Standard library only, as the installer's agent: a Job runs it from a ConfigMap in a stock Python image. Its
rooms:

    command     the command line: which subcommand it is for; `options`: what several have in common
    index       `soci-index IMAGE...`: its options, and a run of it
    sources     which images: named, listed, in Kubernetes' manifests, in a cluster
    references  an image reference in its parts, and where the indexed image goes
    indexer     one image: read, planned, put together, pushed; `image_reader`: what a registry has of it
    attached    what signs or describes an image, and would be lost
    layers      which layers can have a zTOC, and why the others cannot
    ztocs       the zTOC of a layer: kept, or made of that layer alone
    prefetch    the prefetch lists of an image's layers, out of their zTOCs
    assemble    the indexed image out of its manifests and zTOCs; `oci`: as Go writes JSON
    registry    registries, as oras talks to them; `credentials`: who we are to them
    ecr_token   a password of ECR with nothing but Python, where there is no AWS CLI
    advise      `soci-index advise IMAGE`; `node_recording`: the reads of a container, on its node,
                `recorded_reads`: in which layers they are, `image_layers` and `layer_files`: what is where in
                these, `load_model`: what each way of loading takes, `advice`: which one is the best
    tools       the two programs that do the work: found, or fetched and checked
    processes   the programs that run: none outlives the run
    outcome     what came of each image; `progress`: what is seen before
    errors      why something is not done
"""

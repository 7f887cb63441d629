"""soci-bench: cold pod starts of an image on the nodes of a cluster, with and without SOCI, side by side.

Its rooms:

    command        the command line, on any cluster
    arms           how an image is loaded, and on which node: what is compared
    measurement    the order of the samples, and each of them: cold, started, followed, deleted
    node_session   the program on the node that empties and counts (agent/bench.py), asked through kubectl
    pod_watch      when what became of a pod, as the API server tells it
    samples        a sample's figures, and what of several is worked out: medians, floors, ratios
    report         the result for people and for programs
    plots          the result as a picture
"""

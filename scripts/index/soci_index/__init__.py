"""``soci-index``: gives images their SOCI index.

Standard library only, as the installer's agent: a Job runs it from a ConfigMap in a stock Python image. Its
rooms:

    command     the command line, and which subcommand it is for
    options     what several subcommands have in common
    index       `soci-index IMAGE...`
    tools       the two programs that do the work: found, or fetched and checked
    errors      why something is not done
"""

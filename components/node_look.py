"""The command by which an installer's pod looks at its node, for soci-doctor and for the sample's figures.

It is not in doctor.py, which is also started as a program: Python warns of one that its package has imported.
"""

# An installer from before this command would take the word for a new start, and install.
LOOK = """test -e agent/doctor.py || { echo 'this installer is older. Remedy: pulumi up' >&2; exit 1; }
exec python3 -B -m agent doctor"""

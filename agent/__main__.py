"""`python -m agent`, the same program as `gitops-agent`."""

from agent.cli import main

main()

"""gitops-agent: push-to-deploy for ordinary Linux hosts."""

__version__ = "0.1.0"

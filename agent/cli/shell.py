"""`completion`: what a shell needs to complete commands, options and the names of targets."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell; each TAB then asks this program.

    \b
    bash  source <(gitops-agent completion bash)        in ~/.bashrc
    zsh   source <(gitops-agent completion zsh)         in ~/.zshrc, after compinit
    fish  gitops-agent completion fish > ~/.config/fish/completions/gitops-agent.fish
    """
    script = get_completion_class(shell)
    assert script
    root = click.get_current_context().find_root().command
    click.echo(script(root, {}, "gitops-agent", "_GITOPS_AGENT_COMPLETE").source())

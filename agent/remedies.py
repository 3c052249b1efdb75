"""What is likely wrong with a remote that could not be read, by what git said of it. Pure.

For whoever shows such a remote to a person: `status`, the page and doctor.
"""

import re

# git's own words (git 2.39, OpenSSH 9, curl 7.88) and ours, and what is behind them.
_REMEDIES = {
    r"fsck error|possible repository corruption": (
        "what was pushed is no sound repository, and nothing of it is taken: `git fsck` in a clone"
        " names the object; push a history without it"
    ),
    r"no git in PATH": "`apt-get install git`",
    r"git could not be started": "the host gives the agent nothing more; its log says of what",
    r"demands a password": (
        "put a token with the right to read contents into [targets.{name}.git]"
        " token = {{ file = … }}, then `systemctl reload gitops-agent`; a forge asks so too for a"
        " repository that is not there: compare `repo`"
    ),
    r"refused the token": (
        "renew the token, with the right to read contents of just that repository, then"
        " `gitops-agent sync {name}`"
    ),
    r"Permission denied \(.*publickey": (
        "ssh's key is not known there: add the public half of ssh_key as a deploy key"
    ),
    r"Host key verification failed|No .* host key is known": (
        "the host's key is not the one in known_hosts: compare `ssh-keyscan HOST` with what its"
        " operator publishes, and put it there"
    ),
    r"UNPROTECTED PRIVATE KEY|bad permissions": "chmod 600 the file of ssh_key",
    r"Could not resolve host|Name or service not known|Temporary failure in name": (
        "the name server does not know the host: `getent hosts HOST`"
    ),
    r"not found|does not appear to be a git repository|does not exist|error: 40[34]": (
        "the name is wrong, or the token or key may not see it: a forge says the same for both"
    ),
    r"git fetch did not end within": (
        "it sends, but takes longer than `timeout` of [targets.{name}]: raise that for a first"
        " clone over a slow line, and `systemctl reload gitops-agent`"
    ),
    r"timed out|no answer|Connection refused|unreachable|Failed to connect|Could not connect": (
        "nobody answers there: a firewall, a proxy, or it is down: `curl -v` its URL"
    ),
    r"certificate|SSL|TLS": (
        "its certificate is not trusted here: `apt-get install ca-certificates`, or name your own"
        " CA in SSL_CERT_FILE; a wrong clock does it too"
    ),
    r"dubious ownership": "the repository belongs to another user than the agent runs as",
    r"error: 30\d|redirect": "the repository has moved: put its new URL into `repo`",
    r"error: 5\d\d": "the remote has trouble of its own; the agent tries again by itself",
}
_OTHERWISE = "try it by hand: `git ls-remote URL`; the agent tries again by itself"


def remedy(words: str, name: str) -> str:
    """What to do about the remote of target `name`, of which an error says `words`."""
    for pattern, todo in _REMEDIES.items():
        if re.search(pattern, words, re.IGNORECASE):
            return todo.format(name=name)
    return _OTHERWISE


_AFTER = {
    "held": "push a newer revision, or `gitops-agent sync {name} --force` to try it again",
    "paused": "`gitops-agent resume {name}` ends that; what is pushed meanwhile goes out then",
    "waiting": "`gitops-agent logs {name}` says more; `gitops-agent sync {name}` tries it at once",
    "no-branch": "push one, or change `branch`; `gitops-agent check` says which there are",
}


def after_look(result: str, why: str, name: str) -> str:
    """What to do about a look at target `name` that came to `result` and said `why`.

    Nothing where there is nothing to do, or an error was no remote's doing.
    """
    if result == "error":
        return remedy(why, name) if why.startswith("the remote ") else ""
    return _AFTER.get(result, "").format(name=name)

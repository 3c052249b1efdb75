"""One machine for all of these tests, on which the newcomer's page was followed to its end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import CERTIFICATE, Machine, NoMachine, booted
from tests.systemd.page import blocks

# GitHub, in the machine itself: a host of that name that gives out a repository by ssh.
GITHUB = """
echo '127.0.0.1 localhost github.com deploy.example.org' >> /etc/hosts
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
printf '[global]\\nno-index = true\\nfind-links = /wheels\\n' > /etc/pip.conf
useradd --create-home --shell /usr/bin/git-shell git
git init --quiet --bare --initial-branch=main /home/git/acme/shop.git
install -d -m 0700 /home/git/.ssh /root/.ssh
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
cp /root/.ssh/id_ed25519.pub /home/git/.ssh/authorized_keys
chown -R git: /home/git
systemctl --quiet start ssh
ssh-keyscan github.com > /root/.ssh/known_hosts 2>/dev/null
git config --global user.name Ada
git config --global user.email ada@example.org
git clone --quiet git@github.com:acme/shop.git /root/shop 2>/dev/null
cd /root/shop
git checkout --quiet -b main
echo 1 > n; git add n; git commit --quiet -m one; git push --quiet origin main 2>/dev/null
"""
TLS = f"""
live={Path(CERTIFICATE).parent}
mkdir -p $live
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=deploy.example.org \\
    -addext subjectAltName=DNS:deploy.example.org \\
    -keyout $live/privkey.pem -out {CERTIFICATE} 2>/dev/null
"""
DEPLOY_KEY = """
cat /etc/gitops-agent/credentials/core/deploy-key.pub >> /home/git/.ssh/authorized_keys
"""


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    try:
        with booted() as one:
            one.run(GITHUB)
            one.run(TLS)
            yield one
    except NoMachine as error:
        pytest.skip(f"no systemd to boot here: {error}")


@pytest.fixture(scope="session")
def installed(machine: Machine) -> Machine:
    """The machine after every command of docs/install.md, in its order."""
    for block in blocks("sh"):
        # The machine has the program as a wheel, where the page has a checkout.
        machine.run(block.replace("pip install .", "pip install gitops-agent"))
        if "deploy-key.pub" in block:
            machine.run(DEPLOY_KEY)
    return machine

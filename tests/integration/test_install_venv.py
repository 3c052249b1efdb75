"""`install-venv`: an environment for what the tree needs. pip, venv and wheels are real."""

import os
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.remotes import free_port
from tests.shipped import Host, explains

# One process runs them all, so that the first environment is made once.
pytestmark = pytest.mark.xdist_group("install-venv")

PIP = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1"}


def wheel(folder: Path, version: str) -> Path:
    path = folder / f"greet-{version}-py3-none-any.whl"
    info = f"greet-{version}.dist-info"
    files = {
        "greet.py": f"def main(): print('hello {version}')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: greet\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ngreet = greet:main\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as zipped:
        for name, text in files.items():
            zipped.writestr(name, text)
    return path


def greeting(host: Host) -> str:
    greet = host.tree / ".venv/bin/greet"
    return subprocess.run([greet], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def builds(host: Host) -> list[str]:
    kept = (host.tree / ".venv.builds").iterdir()
    return sorted(path.name for path in kept if path.is_dir())


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Host, str]:
    """A tree whose environment the hook has made from nothing; once, since it takes seconds."""
    host = Host(tmp_path_factory.mktemp("first"))
    host.write("requirements.txt", "")
    status, output = host.run("install-venv", **PIP)
    assert status == 0, output
    return host, output


@pytest.fixture
def python(host: Host, first: tuple[Host, str]) -> str:
    """A Python whose `-m venv` copies the first one made; pip and all else in it is real."""
    real, (made, _) = sys.executable, first
    template = (made.tree / ".venv").resolve()
    host.program(
        "quick-python",
        "import os, subprocess, sys\n"
        "if sys.argv[1:3] == ['-m', 'venv']:\n"
        f"    subprocess.run(['cp', '-al', {str(template)!r}, sys.argv[3]], check=True)\n"
        "    sys.exit(os.remove(sys.argv[3] + '/complete.json'))\n"
        f"os.execv({real!r}, [{real!r}, *sys.argv[1:]])\n",
    )
    return "--python=quick-python"


def test_an_environment_is_made_where_there_was_none(first: tuple[Host, str]) -> None:
    host, output = first
    assert "newly built" in output
    code = "import sys; print(sys.prefix)"
    argv = [host.tree / ".venv/bin/python", "-c", code]
    prefix = subprocess.run(argv, stdout=subprocess.PIPE, text=True).stdout.strip()
    assert Path(prefix).resolve() == (host.tree / ".venv").resolve()


def test_it_follows_its_inputs_and_the_way_back_needs_no_index(host: Host, python: str) -> None:
    env = {**PIP, "PIP_FIND_LINKS": str(host.root)}
    wheels = [wheel(host.root, "1.0"), wheel(host.root, "2.0")]
    host.write("requirements.txt", "-r more.txt\n")
    host.write("more.txt", "greet==1.0\n")
    assert host.run("install-venv", python, **env)[0] == 0
    assert "is up to date" in host.run("install-venv", python, **env)[1]

    host.write("more.txt", "greet==2.0\n")  # only the included file changes
    status, output = host.run("install-venv", python, **env)
    assert (status, greeting(host)) == (0, "hello 2.0"), output

    for path in wheels:
        path.unlink()
    kept = builds(host)
    host.write("more.txt", "greet==1.0\n")
    status, output = host.run("install-venv", python, **env)
    assert (status, greeting(host)) == (0, "hello 1.0"), output
    assert "one built before" in output
    assert builds(host) == kept

    host.write("more.txt", "greet==3.0\n")
    status, output = host.run("install-venv", python, **env)
    assert (status, explains(output)) == (1, True)
    assert "pip could not install --requirement requirements.txt" in output
    assert (greeting(host), builds(host)) == ("hello 1.0", kept)


def test_a_local_wheel_that_changes_is_an_input(host: Host, python: str) -> None:
    first = wheel(host.root, "1.0")
    host.write("requirements.txt", f"{first}\n")
    assert host.run("install-venv", python, **PIP)[0] == 0
    with zipfile.ZipFile(first, "a") as zipped:
        zipped.writestr("more.py", "")
    assert "newly built" in host.run("install-venv", python, **PIP)[1]


def test_one_whose_python_is_gone_is_built_anew(host: Host, python: str) -> None:
    host.write("requirements.txt", "")
    assert host.run("install-venv", python, **PIP)[0] == 0
    broken = host.tree / ".venv/bin/python"
    broken.unlink()
    broken.symlink_to("/usr/bin/python2.6")
    assert "newly built" in host.run("install-venv", python, **PIP)[1]
    assert subprocess.run([broken, "-c", ""]).returncode == 0


def test_an_install_that_is_stopped_leaves_nothing_half_built(host: Host, python: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host.write("requirements.txt", "greet\n")
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        env = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index}
        with host.start("install-venv", python, **env) as process:
            asking, _ = silent.accept()  # pip is at work
            with asking:
                assert len(builds(host)) == 1
                os.killpg(process.pid, signal.SIGTERM)
                output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert explains(output)
    assert builds(host) == []
    assert not (host.tree / ".venv").is_symlink()


def test_an_index_out_of_reach_is_for_later(host: Host, python: str) -> None:
    host.write("requirements.txt", "no-such-package\n")
    index = f"http://127.0.0.1:{free_port()}/simple"
    env = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index, "PIP_RETRIES": "0"}
    status, output = host.run("install-venv", python, **env)
    assert (status, explains(output)) == (75, True), output
    assert builds(host) == []


BACKEND = '''
import pathlib, zipfile
def _wheel(folder):
    with zipfile.ZipFile(pathlib.Path(folder, "shop-1-py3-none-any.whl"), "w") as zipped:
        zipped.writestr("shop.pth", str(pathlib.Path().resolve()))
        zipped.writestr("shop-1.dist-info/METADATA", """Metadata-Version: 2.1
Name: shop
Version: 1
Provides-Extra: prod
Requires-Dist: greet; extra == "prod"
""")
        zipped.writestr("shop-1.dist-info/WHEEL", """Wheel-Version: 1.0
Generator: x
Root-Is-Purelib: true
Tag: py3-none-any
""")
        zipped.writestr("shop-1.dist-info/RECORD", "")
    return "shop-1-py3-none-any.whl"
def build_wheel(folder, config_settings=None, metadata_directory=None): return _wheel(folder)
def build_editable(folder, config_settings=None, metadata_directory=None): return _wheel(folder)
'''


def test_a_project_with_an_extra_reads_its_code_from_the_tree(host: Host, python: str) -> None:
    wheel(host.root, "1.0")
    host.write("backend.py", BACKEND)
    host.write(
        "pyproject.toml",
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    )
    host.write("shop.py", "print('one')\n")
    env = {**PIP, "PIP_FIND_LINKS": str(host.root)}
    status, output = host.run("install-venv", python, "--extra", "prod", **env)
    assert (status, greeting(host)) == (0, "hello 1.0"), output
    host.write("shop.py", "print('two')\n")
    ask = [host.tree / ".venv/bin/python", "-c", "import shop"]
    assert subprocess.run(ask, stdout=subprocess.PIPE, cwd="/").stdout == b"two\n"


def test_two_installs_at_once_and_an_environment_made_by_hand(host: Host, python: str) -> None:
    host.write("requirements.txt", "")
    host.write(".venv/pyvenv.cfg", "")
    host.write(".venv/mine", "kept")
    with socket.create_server(("127.0.0.1", 0)) as gate:
        # Builds only once it is let, so that it is surely still at work when the second comes.
        host.program(
            "slow-python",
            "import os, socket, sys\n"
            "if sys.argv[1:3] == ['-m', 'venv']:\n"
            f"    socket.create_connection(('127.0.0.1', {gate.getsockname()[1]})).recv(1)\n"
            "os.execvp('quick-python', ['quick-python', *sys.argv[1:]])\n",
        )
        with host.start("install-venv", "--python", "slow-python", **PIP) as slow:
            waiting, _ = gate.accept()
            status, output = host.run("install-venv", python, **PIP)
            waiting.close()
            said, _ = slow.communicate(timeout=60)
    assert (status, explains(output)) == (75, True)
    assert slow.returncode == 0, said
    (kept,) = (host.tree / ".venv.builds").glob("made-by-hand-*/.venv/mine")
    assert kept.read_text() == "kept"
    assert str(kept.parent) in said


def test_install_venv_says_what_is_missing(host: Host) -> None:
    status, output = host.run("install-venv")
    assert (status, explains(output)) == (1, True)
    assert "has no requirements.txt, pyproject.toml or setup.py" in output
    assert "there is no prod.txt" in host.run("install-venv", "-r", "prod.txt")[1]
    host.write("requirements.txt", "")
    assert "there is no program python9" in host.run("install-venv", "--python", "python9")[1]
    host.write(".venv/notes", "no environment at all")
    status, output = host.run("install-venv", **PIP)
    assert status == 1
    assert "is there and is no virtual environment" in output
    assert (host.tree / ".venv/notes").exists()

"""`init`: from an empty folder and a wheel of this checkout to a goal in the sandbox, without a network."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from docs_kit import ROOT
from running import KEY, eventually
from sources_kit import secret_for

from bridge import rules, sources
from bridge.cli import init, main
from bridge.rules.reading.folder import shipped

VISITOR = "00000000-0000-4000-8000-000000000001"
TOOLS = {"stripe": "purchase", "tally": "lead"}
MORE_TOOLS = {"polar": "purchase", "clerk": "signup", "calcom": "demo_booked"}
BUILT_FROM = ("bridge", "docs/recipes", "mappings", "pyproject.toml", "README.md", "LICENSE", "requirements.txt")


def run(words, folder, **environ):
    """A command that must succeed; what it printed."""
    given = {"PATH": os.environ["PATH"], "HOME": str(folder), **environ}
    done = subprocess.run(words, cwd=folder, env=given, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment_with(folder: Path, requirements: Path) -> Path:
    """A virtual environment with this bridge alone; its other packages are those that the tests have. Its `bin`."""
    run([sys.executable, "-m", "venv", "--without-pip", folder], folder.parent)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [
        sys.executable,
        "-m",
        "pip",
        "-q",
        "--python",
        folder / "bin/python",
        "install",
        "--no-compile",
        "--no-index",
        "--no-deps",
    ]
    run([*install, "-r", requirements], requirements.parent, PIP_DISABLE_PIP_VERSION_CHECK="1")
    return folder / "bin"


def wheel_of_this_checkout(folder: Path) -> Path:
    """As `pip wheel .` makes it, from a copy: setuptools writes into the folder that it builds."""
    copy = folder / "checkout"
    for name in BUILT_FROM:
        source, to = ROOT / name, copy / name
        to.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, to, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to)
    for name in ("Procfile", ".python-version"):
        shutil.copy(ROOT / name, copy / name)
    build = [
        sys.executable,
        "-m",
        "pip",
        "-q",
        "wheel",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        copy,
    ]
    run(build, folder, PIP_DISABLE_PIP_VERSION_CHECK="1")
    (made,) = folder.glob("*.whl")
    return made


def package_of(built) -> list[str]:
    """The files of the package in a wheel."""
    with zipfile.ZipFile(built) as archive:
        return sorted(name for name in archive.namelist() if name.startswith("bridge/"))


def secrets(tools) -> dict[str, str]:
    """A secret of the right form for each of the tools, and of its own."""
    rule_set = rules.load({f"{tool}.yaml": f"extends: {tool}\n" for tool in tools}, {}, sources.presets())
    found = {}
    for tool, source in rule_set.sources.items():
        own = base64.b64encode(f"{tool:_<24}".encode()).decode()
        found[source.secret_names[0]] = f"whsec_{own}" if secret_for(source.verify).startswith("whsec_") else own
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    "tools", [TOOLS, pytest.param(TOOLS | MORE_TOOLS, marks=pytest.mark.long)], ids=["two tools", "five tools"]
)
@pytest.mark.timeout(600)  # a build, two installations and ten processes, on a loaded machine
def test_a_folder_that_deploys_as_it_is(machine, tools):
    built = wheel_of_this_checkout(machine.folder)
    assert package_of(built) == package_of(io.BytesIO(init.wheel("")))
    asked = machine.folder / "wheel.txt"
    asked.write_text(f"./{built.name}\n")
    first = environment_with(machine.folder / "first", asked)
    told = run([first / "python", "-m", "bridge", "init", "shop", "--for", ",".join(tools)], machine.folder)
    shop = machine.folder / "shop"
    assert max(map(len, told.splitlines())) <= 80
    following = [line.strip() for line in told.split("Next:\n")[1].splitlines()]
    assert following[0].startswith("cd shop && ")
    assert following[1:] == ["pip install --require-hashes -r requirements.txt", "python -m bridge check --strict"]

    # what the folder itself holds is enough: its own wheel, verified by its own hash
    own, others = (shop / "requirements.txt").read_text().split("\n\n", 1)
    assert others == (ROOT / "requirements.txt").read_text()
    (shop / "own.txt").write_text(own)
    second = environment_with(machine.folder / "second", shop / "own.txt")
    (shop / "own.txt").unlink()
    datafast = machine.datafast()
    (shop / ".env").write_text(filled((shop / ".env.example").read_text(), {"DATAFAST_API_KEY": KEY, **secrets(tools)}))
    environ = {
        "PATH": f"{second}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": "",
        "DATAFAST_API_URL": datafast.api_url,
        "BRIDGE_RATE_PER_MINUTE": "60000",
    }
    machine.folder = shop
    checked = machine.bridge("check", "--strict", environ=environ, name="check")
    assert checked.ended() == 0, checked.log
    assert checked.log.endswith("No problems.\n")
    lines = dict(line.split(": ", 1) for line in (shop / "Procfile").read_text().splitlines() if line[0] != "#")
    release = machine.run(["sh", "-c", lines["release"]], environ, "release")
    assert release.ended() == 0, release.log
    web = machine.web(environ, "web", ["sh", "-c", f"exec {lines['web']}"])
    worker = machine.run(["sh", "-c", f"exec {lines['worker']}"], environ, "worker")
    said = re.findall(r"^\$ python -m bridge (simulate .*)$", (shop / "README.md").read_text(), re.MULTILINE)
    assert len(said) == len(tools)
    for words in said:
        posted = machine.bridge(*words.split(), "--to", web.url, environ=environ, name=words.split()[-1])
        assert posted.ended() == 0, posted.log
    eventually(lambda: len(datafast.goals()) >= len(tools), what="each tool's goal")
    assert sorted(datafast.seen()) == sorted((goal, VISITOR) for goal in tools.values())
    assert worker.process.poll() is None, worker.log


def filled(example: str, values: dict[str, str]) -> str:
    """The file of settings as somebody fills it in; every variable must be there, empty."""
    for name, value in values.items():
        assert f"\n{name}=\n" in example, name
        example = example.replace(f"\n{name}=\n", f"\n{name}={value}\n")
    return example


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """Run `init` in an empty folder; its exit code and what it said."""
    monkeypatch.chdir(tmp_path)

    def init(*words):
        code = main(["init", *words])
        told = capsys.readouterr()
        return code, told.out + told.err

    return init


def test_each_file_says_what_it_is_for(said):
    code, told = said("shop", "--for", "stripe, Cal.com", "--for", "tally,stripe")
    assert code == 0
    written = {path.relative_to("shop").as_posix() for path in Path("shop").rglob("*") if path.is_file()}
    assert written == {
        ".env.example", ".gitignore", ".python-version", "Procfile", "README.md", "requirements.txt", "snippet.html",
        init.wheel_name(), *(f"{folder}/{tool}.{end}" for tool in ("stripe", "calcom", "tally")
                        for folder, end in (("mappings", "yaml"), ("samples", "json"))),
    }  # fmt: skip
    assert all(name in told for name in written)
    layer = Path("shop/mappings/stripe.yaml").read_text()
    assert layer.startswith("extends: stripe ")
    used = re.search(r"^use:\n((?:  - .*\n)+)", layer, re.MULTILINE)[1].splitlines()
    assert all(re.fullmatch(r"  - \w+ # \S.*", line) for line in used), used
    assert {"  - purchase", "  - refund", "  - trial_converted"} <= {line.partition(" #")[0] for line in used}
    readme = Path("shop/README.md").read_text()
    assert len(re.findall(r"^## \d\. ", readme, re.MULTILINE)) == 5
    assert "`https://YOUR-HOST/webhooks/calcom`" in readme
    assert "`BOOKING_CREATED`" in readme
    example = Path("shop/.env.example").read_text()
    variables = re.findall(r"^(.*)\n#?([A-Z_]+)=(.*)$", example, re.MULTILINE)
    assert [name for comment, name, _ in variables if not comment.startswith("# ")] == []
    secret = {name for name in re.findall(r"\w+", example) if name.endswith(("_SECRET", "_KEY", "_TOKEN"))}
    assert {"STRIPE_WEBHOOK_SECRET", "DATAFAST_API_KEY", "BRIDGE_ADMIN_TOKEN"} <= secret
    assert [name for _, name, value in variables if name in secret and value] == []


def test_the_readme_has_a_call_for_each_event_that_the_url_does_not_receive(said):
    assert said("shop", "--for", "gumroad")[0] == 0
    readme = Path("shop/README.md").read_text()
    calls = re.findall(r"^\$ curl -X PUT .* -d resource_name=(\w+) ", readme, re.MULTILINE)
    assert calls == ["refund", "dispute", "cancellation"]
    assert re.search(r"the scope view_sales:\n\n```console\n(\$ curl .*\n){3}```\n\n", readme)


def test_every_tool_that_ships_a_file_can_be_named(said):
    code, told = said("all", "--for", ",".join(shipped()))
    assert code == 0, told
    files = rules.read_files(Path("all/mappings"))
    rule_set = rules.load(files, {}, sources.presets())
    assert (rule_set.suspicions, rule_set.problems) == ((), ())
    bare = rules.load({name: f"extends: {name[:-5]}\n" for name in files}, {}, sources.presets())
    for name in shipped():
        on = {rule.id for rule in rule_set.rules[name] if rule.enabled}
        usual = {rule.id for rule in bare.rules[name] if rule.enabled and rule.kind == "goal"}
        assert on - usual == ({"trial_converted"} if name == "stripe" else set())
        assert usual - on == set()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["shop"], "Name the tools that send webhooks, such as --for stripe,clerk. There are "),
        (
            ["shop", "--for", "clark,Nothing"],
            'No mapping file is shipped for "clark" (did you mean "clerk"?), "Nothing". There are ',
        ),
    ],
)
def test_a_wrong_list_of_tools_is_one_sentence_and_writes_nothing(said, words, sentence):
    code, told = said(*words)
    assert (code, told.count("\n")) == (2, 1)
    assert told.startswith(sentence)
    assert "clerk" in told
    assert not Path("shop").exists()


def test_a_folder_with_something_in_it_is_left_alone(said):
    Path("shop").mkdir()
    Path("shop/mine").write_text("mine")
    assert said("shop", "--for", "stripe") == (1, "shop is not empty: name a new folder. Nothing was written.\n")
    assert [path.name for path in Path("shop").iterdir()] == ["mine"]
    code, told = said("shop/mine", "--for", "stripe")
    assert (code, told) == (1, "shop/mine cannot be written (not a directory); no file was left in it.\n")
    assert Path("shop/mine").read_text() == "mine"


def test_an_empty_folder_will_do(said):
    assert said(".", "--for", "tally")[0] == 0
    assert Path("mappings/tally.yaml").is_file()


def test_the_bridge_in_the_folder_has_the_same_bytes_each_time():
    pinned = (ROOT / "requirements.txt").read_text()
    assert init.wheel(pinned) == init.wheel(pinned)

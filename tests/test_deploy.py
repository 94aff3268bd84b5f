"""The files of deploy/, as far as they can be checked without Docker, Terraform and systemd (docs/deploy.md)."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from configparser import RawConfigParser
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import ingest.cli
import serve.__main__
from common.settings import Settings
from common.streams import STREAMS
from event_warehouse import COMMANDS
from tools import ROOT

DEPLOY = ROOT / "deploy"
KNOWN = {name: command for commands in COMMANDS.values() for name, command in commands.items()}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
OURS = {name: one for name, one in COMPOSE["services"].items() if one["image"].startswith("event-warehouse:")}
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
TERRAFORM = {path.name: path.read_text() for path in (DEPLOY / "terraform").glob("*.tf")}


def parse(words: list[str]) -> None:
    """Parse the arguments of `event-warehouse` as the command would, without running it."""
    name, *given = words
    command = KNOWN[name]
    arguments = [*command.arguments, *given]
    group: Any
    if command.module == "dbt_project.__main__":
        from dbt.cli.main import cli

        group = cli
    else:
        group = typer.main.get_command({"ingest.cli": ingest.cli, "serve.__main__": serve.__main__}[command.module].app)
    context = group.make_context(name, arguments)
    if rest := [*context._protected_args, *context.args]:
        sub_name, sub, given = group.resolve_command(context, rest)
        sub.make_context(sub_name, given, parent=context)


def in_shell(text: str) -> list[list[str]]:
    """The commands of `event-warehouse` in a line of a shell."""
    return [shlex.split(found) for found in re.findall(r"event-warehouse ([a-z][^;'>]*)", text)]


def commands() -> dict[str, list[str]]:
    """Where it is found to the arguments of `event-warehouse`."""
    found = {}
    for name, service in OURS.items():
        for place, words in enumerate(
            in_shell(service["command"][0]) if "entrypoint" in service else [service["command"]]
        ):
            found[f"compose {name} {place}"] = words
    for path in UNITS:
        unit = RawConfigParser(strict=False)
        unit.read(path)
        program, *words = shlex.split(unit["Service"]["ExecStart"])
        assert program == "/srv/event-warehouse/.venv/bin/event-warehouse"
        found[path.name] = words
    for path in (DEPLOY / "cron").iterdir():
        for place, words in enumerate(in_shell(path.read_text().splitlines()[-1])):
            found[f"cron {path.name} {place}"] = words
    dagster = (DEPLOY / "dagster" / "definitions.py").read_text()
    for words in re.findall(r"run\(context, (.+?)\)", dagster):
        found[f"dagster {words}"] = [word.strip(' "') for word in words.split(",")]
    found["Dockerfile"] = json.loads(re.findall(r"^CMD (.+)$", DOCKERFILE, re.MULTILINE)[0])
    jobs = re.findall(r"^    (\w+) += \{ schedule", TERRAFORM["run.tf"], re.MULTILINE)
    assert len(jobs) == 2
    found |= {f"terraform job {job}": [job] for job in jobs}
    found["terraform service"] = json.loads(re.findall(r'args += (\["serve".+\])', TERRAFORM["run.tf"])[0])
    return found


FOUND = commands()


@pytest.mark.parametrize("words", FOUND.values(), ids=FOUND.keys())
def test_a_command_parses(words: list[str]) -> None:
    parse(words)


def test_commands_are_found_everywhere() -> None:
    assert {key.split()[0] for key in FOUND} >= {"compose", "cron", "dagster", "terraform", "Dockerfile"}
    assert {path.name for path in UNITS} <= FOUND.keys()
    assert FOUND["compose build 0"] == ["build"]
    assert FOUND["cron event-warehouse 1"] == ["build"]


def test_a_command_that_does_not_exist_does_not_parse() -> None:
    for words in (["lnad"], ["land", "--folow"], ["serve", "--prot", "1"], ["query", "--formt", "csv"]):
        with pytest.raises((KeyError, typer.TyperException)):
            parse(words)


def test_the_timer_starts_a_unit_that_exists() -> None:
    for timer in (DEPLOY / "systemd").glob("*.timer"):
        assert timer.with_suffix(".service") in UNITS


# -- images -----------------------------------------------------------------------------------------------------------


def test_images_are_pinned_by_digest() -> None:
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    images += [one["image"] for name, one in COMPOSE["services"].items() if name not in OURS]
    assert len(images) == 4
    for image in images:
        assert re.fullmatch(r"\S+:\S+@sha256:[0-9a-f]{64}", image)


def test_our_image_has_the_version_of_the_project() -> None:
    assert {one["image"] for one in OURS.values()} == {f"event-warehouse:{PROJECT['project']['version']}"}


def copied() -> set[str]:
    """What the last stage of the Dockerfile copies of the project."""
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    return {name for names in re.findall(r"^COPY (?!--)(.+) \S+$", last, re.MULTILINE) for name in names.split()}


def test_the_docker_context_has_what_is_copied() -> None:
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    everything = {
        name for names in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE) for name in names.split()
    }
    for name in everything:
        assert any(fnmatch(name, pattern) for pattern in allowed), name
        assert (ROOT / name).exists()


def test_the_image_runs_as_a_user_who_cannot_write_its_code() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    assert "--chown" not in DOCKERFILE


def test_what_is_copied_is_enough(tmp_path: Path) -> None:
    """A folder with these files only, in which nothing can be changed, simulates, lands and parses the dbt project."""
    app, data = tmp_path / "app", tmp_path / "data"
    data.mkdir()
    for name in copied():
        source, target = ROOT / name, app / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "target", "logs"))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    before = {path: path.stat().st_mtime_ns for path in app.rglob("*")}
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DBT_", "WAREHOUSE", "KAFKA"))},
        **dict(re.findall(r"(\w+_PATH)=(\S+)", DOCKERFILE.rpartition("\nFROM ")[2])),
        "PYTHONPATH": str(app),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for name in ("WAREHOUSE_PATH", "SPOOL_PATH", "DBT_TARGET_PATH", "DBT_LOG_PATH"):
        environment[name] = str(data / environment[name].removeprefix("/"))
    for words in (["simulate", "--days", "1", "--events-per-day", "20"], ["land"], ["dbt", "parse"]):
        done = subprocess.run(
            [sys.executable, "-m", "event_warehouse", *words],
            cwd=app,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.stat().st_mtime_ns for path in app.rglob("*")} == before


# -- Terraform --------------------------------------------------------------------------------------------------------


def test_terraform_has_the_topics_and_subscriptions_that_are_landed() -> None:
    """Its expressions, in Python, give for each contract what the settings do."""
    main = TERRAFORM["main.tf"]
    [folder] = set(re.findall(r'\$\{path\.module\}/([./a-z]+?)(?:/\$\{file\})?"', main))
    assert (DEPLOY / "terraform" / folder).resolve() == (ROOT / "streams").resolve()
    assert "topic        = try(contract.topic, name)" in main
    assert 'subscription = try(contract.subscription, "${try(contract.topic, name)}-landing")' in main
    assert '} if contract.transport == "pubsub"' in main

    settings = Settings(pubsub_project="p", _env_file=None)  # type: ignore[call-arg]
    found = {}
    for path in (ROOT / "streams").glob("*.yml"):
        contract = yaml.safe_load(path.read_text())
        if contract["transport"] == "pubsub":
            topic = contract.get("topic", path.stem)
            found[path.stem] = topic, contract.get("subscription", f"{topic}-landing")
    assert found == {
        name: (settings.topic(stream), settings.subscription(stream).rpartition("/")[2])
        for name, stream in STREAMS.items()
        if stream.transport == "pubsub"
    }


def test_terraform_sets_settings_that_exist() -> None:
    run = TERRAFORM["run.tf"]
    names = set(re.findall(r"^ +\??:? *\{? *([A-Z][A-Z_]+) +=", run, re.MULTILINE))
    names |= set(re.findall(r'^ +name += "([A-Z_]+)"', run, re.MULTILINE))
    names |= set(re.findall(r"\{ ([A-Z_]+) = ", run))
    assert {"WAREHOUSE", "GCP_PROJECT", "STREAMS", "KAFKA_CONFIG_FILE", "SERVE_TOKENS", "PSEUDONYM_KEY"} <= names
    assert {name.lower() for name in names} <= set(Settings.model_fields)


def test_terraform_makes_the_datasets_that_are_written() -> None:
    [listed] = re.findall(r"datasets = toset\((\[.+?\])\)", TERRAFORM["main.tf"])
    models = (ROOT / "dbt_project" / "dbt_project.yml").read_text()
    assert {"raw", *re.findall(r"\+schema: (\w+)", models)} == set(json.loads(listed))

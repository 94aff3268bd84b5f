"""`stream promote` adds a field to a contract."""

import shutil
from pathlib import Path

import pytest
import yaml

from common.errors import UserError
from common.streams import FOLDER, STREAMS, read_contracts
from contracts.promote import Promoted, promote_field
from engines.warehouse import UnlistedField
from tests.contracts.samples import CONTRACT, fields_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "signups.yml").write_text(CONTRACT)
    return tmp_path


def test_a_promoted_field_is_the_last_one_and_comments_stay(folder: Path) -> None:
    assert promote_field("signups", "props.ref", "integer", folder=folder) == Promoted("props_ref", "integer", "")
    added = "  - name: props_ref\n    path: props.ref\n    type: integer\n    description: Props ref.\n"
    before, country, after = CONTRACT.partition("  - {name: country, description: Country.}  # two letters\n")
    assert (folder / "signups.yml").read_text() == before + country + added + after
    assert fields_of(read_contracts(folder)["signups"])["props.ref"] == {"name": "props_ref", "type": "integer"}
    promote_field("signups", "stream", "string", folder=folder)
    assert (folder / "signups.yml").read_text() == (
        before + country + added + "  - name: body_stream\n    path: stream\n    description: Body stream.\n" + after
    )


def test_a_promoted_field_follows_a_description_of_several_lines(folder: Path) -> None:
    (folder / "signups.yml").write_text(
        CONTRACT.replace("  - {name: country, description: Country.}  # two letters\n", "")
    )
    promote_field("signups", "plan", "string", folder=folder)
    text = (folder / "signups.yml").read_text()
    assert "      signed up.\n  - name: plan\n    description: Plan.\n  # the end\ntime: [sent_at]\n" in text


@pytest.mark.parametrize("name", STREAMS)
def test_a_field_can_be_promoted_in_every_contract_of_the_project(tmp_path: Path, name: str) -> None:
    shutil.copy(FOLDER / f"{name}.yml", tmp_path)
    before = read_contracts(tmp_path)[name]
    promote_field(name, "a.new.path", "json", folder=tmp_path)
    after = read_contracts(tmp_path)[name]
    assert after.fields[:-1] == before.fields
    assert (after.fields[-1].in_body, after.fields[-1].type) == ("a.new.path", "json")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("country", r"signups\.yml reads country already, as country"),
        ("country.code", "read country as a value and as an object"),
        ("tags[0]", r"signups\.yml keeps tags as json, so tags\[0\] cannot be read too: .* replace the field tags by"),
        ("tags.a", r"signups\.yml keeps tags as json, so tags\.a cannot be read too"),
        ("props", r"signups\.yml reads props\.ref, so props cannot be kept too: "),
        ("a..b", "'a..b' is not a path; expected names with . between them"),
        ("price", "type: the column price of fct_events is amount"),
    ],
)
def test_what_cannot_be_promoted_leaves_the_file_as_it_is(folder: Path, path: str, message: str) -> None:
    more = "  - {name: tags, type: json, description: Tags.}\n  - {name: ref, path: props.ref, description: Ref.}\n"
    contract = CONTRACT.replace("  # the end\n", more)
    (folder / "signups.yml").write_text(contract)
    with pytest.raises(UserError, match=message):
        promote_field("signups", path, "string", folder=folder)
    assert (folder / "signups.yml").read_text() == contract


def unlisted(path: str, type_: str, example: str = "aaa") -> UnlistedField:
    return UnlistedField(path, type_, example, 3)


@pytest.mark.parametrize(
    ("path", "seen", "expected"),
    [
        ("props.plan", [("string", "aaa")], "string"),
        ("plan", [("number", "9.99")], "amount"),
        ("plan", [("boolean", "aaaa")], "boolean"),
        ("plan", [("boolean", "aaaa"), ("number", "9")], "string"),
        ("plan", [("number", "9"), ("string", "9")], "string"),
        ("plan", [("string", "aaa"), ("object", "{...}")], "json"),
        ("plan", [("array", "[...]")], "json"),
        ("team.id", [("number", "999")], "id"),
        ("price", [("number", "9")], "amount"),
        ("brand", [("number", "9")], "string"),
    ],
)
def test_without_a_type_a_promoted_field_takes_all_that_was_seen(
    folder: Path, path: str, seen: list[tuple[str, str]], expected: str
) -> None:
    promoted = promote_field("signups", path, seen=[unlisted(path, *one) for one in seen], folder=folder)
    assert promoted.type == expected
    assert read_contracts(folder)["signups"].fields[-1].type == expected


@pytest.mark.parametrize(
    ("path", "example", "why"),
    [
        ("user.email", "", "its name"),
        ("first_name", "", "its name"),
        ("phone", "", "its name"),
        ("shippingAddress", "", "its name"),
        ("contact", "aaa.a@aaaaaaa.aaa", "values that look like e-mail addresses"),
        ("client", "999.99.9.999", "values that look like IP addresses"),
        ("call", "+99 999 999 999", "values that look like phone numbers"),
        ("page_name", "aaa", ""),
        ("version", "9.9", ""),
    ],
)
def test_a_promoted_field_that_looks_personal_is_dropped(folder: Path, path: str, example: str, why: str) -> None:
    seen = [unlisted(path, "string", example)] if example else None
    assert promote_field("signups", path, seen=seen, folder=folder).personal == why
    assert read_contracts(folder)["signups"].fields[-1].personal == ("drop" if why else None)
    comment = f"    personal: drop  # guessed: personal by {why}; review it\n"
    assert (comment in (folder / "signups.yml").read_text()) == bool(why)


SEEN = [unlisted("props.ref", "string"), unlisted("meta", "object", "{...}"), unlisted("items", "array", "[...]")]


@pytest.mark.parametrize(
    ("path", "seen", "closest"),
    [
        ("props.reff", SEEN, "the closest unlisted fields are props.ref"),
        ("zzz", SEEN, "the closest unlisted fields are props.ref, meta, items"),
        ("zzz", [], "the contract lists all fields"),
    ],
)
def test_what_no_message_has_is_not_promoted(folder: Path, path: str, seen: list[UnlistedField], closest: str) -> None:
    with pytest.raises(UserError, match=f"^no message of signups had {path} in the last build; {closest}$"):
        promote_field("signups", path, seen=seen, folder=folder)
    assert (folder / "signups.yml").read_text() == CONTRACT


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("props.ref", SEEN),
        ("meta.inner", SEEN),  # field_drift is one level deep
        ("items[0].sku", SEEN),
        ("user-id.a b", SEEN),  # it does not tell names that may be values
        ("zzz", [unlisted(f"field_{number}", "string") for number in range(20)]),  # it tells 20 of a message
        ("zzz", None),
    ],
)
def test_what_field_drift_cannot_tell_is_promoted(folder: Path, path: str, seen: list[UnlistedField] | None) -> None:
    promote_field("signups", path, seen=seen, folder=folder)
    assert read_contracts(folder)["signups"].fields[-1].in_body == path


def test_beside_what_the_contract_reads_deeper_field_drift_tells_nothing(folder: Path) -> None:
    promote_field("signups", "a.b.c", folder=folder)
    promote_field("signups", "a.b.d", seen=[], folder=folder)
    with pytest.raises(UserError, match=r"no message of signups had a\.x"):
        promote_field("signups", "a.x", seen=[], folder=folder)


def test_a_file_with_all_fields_on_one_line_is_an_error(folder: Path) -> None:
    contract = yaml.safe_load(CONTRACT)
    (folder / "signups.yml").write_text(yaml.safe_dump(contract, default_flow_style=True, width=1_000))
    with pytest.raises(UserError, match="write each field on its own lines"):
        promote_field("signups", "plan", "string", folder=folder)

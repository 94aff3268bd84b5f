"""The list of mutations names text and tests that are there."""

from tests.mutations import MUTATIONS, ROOT


def test_each_mutation_breaks_text_that_is_there() -> None:
    for mutation in MUTATIONS:
        assert mutation.right in (ROOT / mutation.file).read_text(), mutation.name
        assert mutation.wrong != mutation.right, mutation.name
        assert all((ROOT / path).exists() for path in mutation.tests.split()), mutation.name

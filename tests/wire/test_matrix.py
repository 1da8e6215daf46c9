"""Every provider's answers in every client's dialect. What is compared stands in `tests.wire.matrix`."""

import pytest

from tests.vectors import VECTORS
from tests.wire.matrix import CLIENTS, COMMON, FACES, PROVIDERS, cases, common, compare, page

each_face = pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)


@pytest.mark.parametrize("provider", PROVIDERS)
@each_face
def test_every_answer_of_a_provider_is_the_same_to_every_client(provider, face):
    for case in cases(provider):
        want, found = compare(face, case)
        assert want == found, case.name


@pytest.mark.parametrize("name", COMMON)
@each_face
def test_the_common_cases_are_the_same_to_every_client(name, face):
    want, found = compare(face, common(name))
    assert want == found


def test_the_page_is_what_the_tests_compare():
    told = VECTORS.parent / "docs" / "compatibility.md"
    assert told.read_text("utf-8") == page(), "run `make docs-compat`"
    assert all((VECTORS.parent / "tests" / path).exists() for _, path in CLIENTS)

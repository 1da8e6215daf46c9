"""A filter sees an answer in pieces and shows what one that sees it whole would show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.policies.detectors import DETECTORS
from penstock.policies.patterns import BadPattern, PatternRule, compile_pattern, narrow
from penstock.policies.rules import Rule, Rules, TextScan
from penstock.policies.words import BadEntry, Words, shape


def compiled(*rules):
    """Rules written as (action, entries or a pattern)."""
    lists, patterns = [], []
    for number, (_, what) in enumerate(rules):
        lists.append(what if isinstance(what, list) else [])
        if isinstance(what, str):
            named = DETECTORS.get(what)
            pattern = (
                compile_pattern(named.pattern, check=named.check, gate=named.gate, tail=named.tail)
                if named
                else None
            )
            patterns.append(PatternRule(pattern or compile_pattern(what), number))
    made = tuple(Rule(f"r{number}", action, f"<{number}>") for number, (action, _) in enumerate(rules))
    return Rules(made, Words(lists), tuple(patterns))


def through(rules, pieces):
    scan = TextScan(rules)
    shown = ""
    for piece in pieces:
        shown += scan.feed(piece)
        if scan.blocked:
            return shown, True
    shown += scan.flush()
    return shown, bool(scan.blocked)


# --- the reference: slow, simple, and with the whole text before it ---------------------------------


def symbols_of(text):
    """Every symbol of a text with the place of its character, word ends included."""
    out, within = [], False
    for place, char in enumerate(text):
        folded, word = shape(char)
        if not folded:
            continue
        if word is not within:
            out.append(("\0", place))
            within = not within
        if folded == " " and out and next(s for s, _ in reversed(out) if s != "\0") == " ":
            continue
        out += [(symbol, place) for symbol in folded]
    if within:
        out.append(("\0", len(text)))
    return out


def spans_of_words(entries, text):
    flat = symbols_of(text)
    line = "".join(symbol for symbol, _ in flat)
    for entry in entries:
        core, after, before = entry.strip("*"), entry.endswith("*"), entry.startswith("*")
        wanted = "".join(symbol for symbol, _ in symbols_of(core))
        if before:
            wanted = wanted.removeprefix("\0")
        if after:
            wanted = wanted.removesuffix("\0")
        at = line.find(wanted)
        while at >= 0:
            last = at + len(wanted) - 1
            end = flat[last][1] + (flat[last][0] != "\0")
            yield flat[at][1], end
            at = line.find(wanted, at + 1)


def spans_of_pattern(pattern, text):
    at = 0
    while match := pattern.found.search(text, at):
        if pattern.check is None or pattern.check(match[0]):
            yield match.span()
            at = match.end()
        else:
            at = match.start() + 1


def whole(written, text):
    rules = compiled(*written)
    spans = []
    for number, (_, what) in enumerate(written):
        found = spans_of_words(what, text) if isinstance(what, list) else ()
        spans += [(*span, number) for span in found]
    for one in rules.patterns:
        spans += [(*span, one.rule) for span in spans_of_pattern(one.pattern, narrow(text))]
    blocks = [span for span in spans if written[span[2]][0] == "block"]
    first = min(blocks, key=lambda span: (span[0], span[2]), default=None)
    end = first[0] if first else len(text)
    masks = [span for span in spans if written[span[2]][0] == "mask"]
    shown, masking = "", False
    for place in range(end):
        over = [number for start, stop, number in masks if start <= place < stop]
        if not over:
            shown += text[place]
        elif not masking:
            shown += f"<{min(over)}>"
        masking = bool(over)
    return shown, first is not None


LETTERS = st.sampled_from(list("abAB 12-@sk4.+\n敏感词ａＢ１ß\u200bﬁ_:"))
TEXTS = st.text(LETTERS, max_size=40)
ENTRIES = st.lists(
    st.builds(
        lambda core, before, after: "*" * before + core + "*" * after,
        st.text(st.sampled_from(list("abB 1敏感词ﬁß")), min_size=1, max_size=4).map(str.strip).filter(bool),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)
PATTERNS = st.sampled_from(
    [
        *(r"a[ab]{1,4}b", r"\d{2,4}", r"(?<!a)b(?:a1)?", r"\bab\b", r"a(?!b)", r"敏.{0,3}词", r"ab|abba1"),
        *(r"1(?=\n2)", r"b{2}|bab1", "email", "api_key", "card", "iban"),
    ]
)
RULES = st.lists(
    st.tuples(st.sampled_from(["mask", "block", "flag"]), ENTRIES | PATTERNS), min_size=1, max_size=4
)


@given(RULES, TEXTS, st.data())
def test_pieces_are_filtered_like_the_whole(written, text, data):
    pieces, rest = [], text
    while rest:
        size = data.draw(st.integers(1, min(6, len(rest))))
        pieces, rest = [*pieces, rest[:size]], rest[size:]
    assert through(compiled(*written), pieces) == whole(written, text)


@given(RULES, TEXTS)
def test_a_text_is_filtered_alike_letter_by_letter_and_whole(written, text):
    rules = compiled(*written)
    assert through(rules, text) == through(rules, [text])


@given(st.text(max_size=200), st.integers(1, 9))
def test_what_nothing_is_said_of_is_shown_as_it_is_and_at_once(text, size):
    scan = TextScan(compiled(("mask", ["zzzzzzzz"]), ("block", r"qqq\d")))
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    for piece in pieces:
        before = scan.held
        shown = scan.feed(piece)
        assert len(shown) == before + len(piece) - scan.held
    assert through(compiled(("mask", ["zzzzzzzz"]), ("block", r"qqq\d")), pieces) == (text, False)


# --- words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "text", "shown"),
    [
        ("ass", "class, ass; assume", "class, <0>; assume"),
        ("ass*", "class ass assume", "class <0> <0>ume"),
        ("*ass", "class ass assume", "cl<0> <0> assume"),
        ("*ass*", "class", "cl<0>"),
        ("ass", "中文ass中文", "中文<0>中文"),
        ("敏感词", "这是敏感词吗", "这是<0>吗"),
        ("Straße", "STRASSE", "<0>"),
        ("fine", "ﬁne, ＦＩＮＥ", "<0>, <0>"),
        ("foo bar", "foo\n  bar", "<0>"),
        ("hidden", "hid\u200bd\u00aden", "<0>"),
        ("ÄRGER", "A\u0308rger", "A\u0308rger"),  # decomposed: another letter to us
        ("слово", "Слово и слова", "<0> и слова"),
        ("a", "a a-a a_a", "<0> <0>-<0> a_a"),
    ],
)
def test_words_are_found_however_they_are_written(entry, text, shown):
    assert through(compiled(("mask", [entry])), text) == (shown, False)
    assert through(compiled(("mask", [entry])), [text]) == (shown, False)


@pytest.mark.parametrize("entry", ["", "*", "**", " ", "\u200b", "x" * 257])
def test_an_entry_that_means_nothing_is_refused(entry):
    with pytest.raises(BadEntry):
        Words([[entry]])


def test_just_what_may_become_a_word_is_held_back():
    scan = TextScan(compiled(("mask", ["secret plan", "敏感词"])))
    assert [scan.feed(piece) for piece in ["the se", "c", "ond sec", "ret pl", "ot: 敏感", "度"]] == [
        "the ", "", "second ", "", "secret plot: ", "敏感度",
    ]  # fmt: skip
    assert scan.held == 0


# --- patterns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("a.*b", "bound its repetitions"),
        ("end$", "where the text ends"),
        ("^start", "where the text ends"),
        (r"x\Z", "where the text ends"),
        ("(", "no regular expression"),
        ("a{0,3}", "matches nothing"),
        ("a" * 5_000, "characters"),
        ("(?:a{1,99}){1,99}", "bound its repetitions"),
    ],
)
def test_a_pattern_that_cannot_be_decided_in_time_is_refused(pattern, why):
    with pytest.raises(BadPattern, match=why):
        compile_pattern(pattern)


def test_a_pattern_that_takes_for_ever_is_given_up():
    scan = TextScan(compiled(("mask", r"(?:a|aa|a{1,3}){1,60}b")))
    with pytest.raises(TimeoutError):
        scan.feed("a" * 60 + "c" + "a" * 60)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("email", "Write to <max.mustermann+x@mail.example.co.uk>!"),
        ("phone", "Call <+49 170 1234567> or <138 1234 5678>, <(555) 123-4567>."),
        ("card", "Pay by <4111 1111 1111 1111>, not 4111 1111 1111 1112."),
        ("cn_id", "身份证<11010519491231002X>，不是110105194912310021"),
        ("us_ssn", "SSN <078-05-1120> is famous, 000-12-3456 is none"),
        ("iban", "IBAN <DE89 3704 0044 0532 0130 00>, not DE88 3704 0044 0532 0130 00"),
        ("ip", "From <192.168.0.1> to 999.1.1.1 and 1.2.3.4.5.6"),
        ("api_key", "use <sk-abcdefghijklmnop1234> and <ghp_abcdefghijklmnopqrstuvwxyz0123456789>"),
        ("email", "full width: <ｂｏｂ＠ｅｘａｍｐｌｅ．ｃｏｍ>"),
    ],
)
def test_a_detector_finds_what_is_meant_and_no_more(name, text):
    plain = text.replace("<", "").replace(">", "")
    masked = "".join(part.partition(">")[2] if ">" in part else part for part in text.split("<"))
    for pieces in (plain, [plain]):
        shown, _ = through(compiled(("mask", name)), pieces)
        assert shown.replace("<0>", "") == masked

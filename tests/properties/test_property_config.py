"""What people write: configs in JSON, contexts, qualities, arguments of the command."""

import argparse
import contextlib
import dataclasses
import io
import json
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import edged, examples

from ckbd.codec import inputs
from ckbd.model.config import Config
from ckbd.papers.context import NAMED, Context, from_spec
from ckbd.papers.variant import CHOICES, VariantConfig
from ckbd.shell import arguments, parser

BLOCKS = ("analysis8", "analysis16", "synthesis8", "synthesis16")
LEAST = {"width": 64, "M": 8, "levels": 2} | dict.fromkeys(BLOCKS, 0)
WIDTHS = [f.name for f in dataclasses.fields(Config) if f.type == "int"]
RATES = ("lmbda_min", "lmbda_max")

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3)
)


def width(name):
    found = edged(LEAST.get(name, 1), 64 if name in BLOCKS else 2048)
    return st.just(0) | edged(64, 2048) if name == "analysis_width" else found


@st.composite
def configs(draw, groups=True):
    """{field: value} of some fields."""
    some = draw(st.lists(st.sampled_from(WIDTHS), unique=True))
    made = {name: draw(width(name)) for name in some}
    made |= {name: draw(st.floats(1e-9, 999_999)) for name in draw(st.lists(st.sampled_from(RATES), unique=True))}
    if groups and draw(st.booleans()):
        made["groups"] = draw(st.lists(edged(8, 128), min_size=2, max_size=16))
        made["M"] = sum(made["groups"])
    return made


@examples(90)
@given(configs(), st.randoms(use_true_random=False))
def test_configs_come_back_from_json(made, random):
    config = Config(**made)
    for name, value in made.items():
        assert getattr(config, name) == (tuple(value) if name == "groups" else value)
    written = list(config.to_json().items())
    random.shuffle(written)
    read = Config.from_json(json.dumps(dict(written)))
    assert read == dataclasses.replace(config, channel=config.channel if config.groups else 64)
    assert hash(read) == hash(Config.from_json(json.dumps(read.to_json())))
    assert Config.from_json(json.dumps(made)) == config


def fits(name, value, M):
    if name in RATES:
        return type(value) in (int, float, bool) and 0 < value < 1e6
    if name == "groups":
        widths = isinstance(value, list) and all(type(n) is int and n >= 8 for n in value)
        return widths and (value == [] or (2 <= len(value) <= 16 and sum(value) == M))
    low, high = LEAST.get(name, 1), 64 if name in BLOCKS else 2048
    return type(value) is int and (
        (name == "analysis_width" and value == 0) or max(low, name == "analysis_width" and 64) <= value <= high
    )


wrong = st.booleans() | values | edged(-9, 2100, 0, 7, 63, 64, 65, 2048)


@examples(180)
@given(configs(groups=False), st.sampled_from([*WIDTHS, *RATES, "groups"]), wrong)
def test_a_wrong_value_is_refused_by_its_field(made, name, value):
    made[name] = value
    text = json.dumps(made)
    if fits(name, value, made.get("M", 256)):
        assert Config.from_json(text) == Config(**made)
        return
    for call in (lambda: Config(**made), lambda: Config.from_json(text)):
        with pytest.raises(ValueError, match=f"^(config: )?{name}: "):
            call()


@examples(100)
@given(st.lists(edged(7, 130), max_size=18), st.sampled_from((-1, 0, 0, 0, 1)))
def test_groups_make_up_the_channels(groups, more):
    M = min(max(sum(groups) + more, 8), 2048)
    if fits("groups", groups, M):
        assert Config(M=M, groups=groups).groups == tuple(groups)
        return
    with pytest.raises(ValueError, match="^groups: "):
        Config(M=M, groups=groups)


@examples(120)
@given(values | st.dictionaries(st.sampled_from([*WIDTHS, *RATES, "groups"]), wrong, max_size=3), st.text(max_size=9))
def test_any_json_is_a_config_or_refused(value, more):
    for text in (json.dumps(value), more, json.dumps(value)[: len(more)], json.dumps(value) + more):
        with contextlib.suppress(ValueError):
            assert isinstance(Config.from_json(text), Config)


# Contexts


@st.composite
def contexts(draw):
    """Masks and orders of every size; a raster's taps lie before the centre."""
    side = draw(st.sampled_from(range(1, 16, 2)))
    raster, middle = draw(st.booleans()), side * side // 2
    bits = draw(st.lists(st.integers(0, 1), min_size=side * side, max_size=side * side))
    bits = [bit if i < middle or (i > middle and not raster) else 0 for i, bit in enumerate(bits)]
    mask = [bits[i : i + side] for i in range(0, side * side, side)]
    if raster:
        return {"mask": mask, "order": None}
    height, across = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    phases = draw(st.integers(1, height * across))
    numbers = draw(st.permutations([i % phases for i in range(height * across)]))
    return {"mask": mask, "order": [numbers[i : i + across] for i in range(0, len(numbers), across)]}


@examples(90)
@given(contexts())
def test_contexts_come_back_from_json(spec):
    context = from_spec(spec)
    assert from_spec(json.loads(json.dumps(context.to_json()))) == context
    assert len(context.taps) == sum(map(sum, spec["mask"]))
    assert all(dw + dh * context.skew < 0 for dh, dw in context.taps if spec["order"] is None)
    config = VariantConfig(context=context)
    assert VariantConfig(**json.loads(json.dumps(config.to_json()))) == config


@examples(120)
@given(contexts(), st.sampled_from(("mask", "order", "both")), values, st.integers(0, 300), edged(-2, 300))
def test_a_wrong_context_is_refused_by_its_part(spec, part, value, at, number):
    rows = spec[part] if part != "both" and spec[part] else None
    if rows is None:
        spec = value if part == "both" else spec | {part: value}
    else:
        row = rows[at % len(rows)]
        row[at % len(row)] = number
    try:
        assert isinstance(from_spec(spec), Context)
    except ValueError as error:
        assert str(error).split(":")[0] in ("context", "mask", "order")
        return
    if isinstance(spec, str):
        assert spec in NAMED


@examples(120)
@given(st.fixed_dictionaries({}, optional={name: st.sampled_from(c) | scalars for name, c in CHOICES.items()}))
def test_a_wrong_choice_is_refused_by_its_field(made):
    bad = [n for n, v in made.items() if not any(type(v) is type(c) and v == c for c in CHOICES[n])]
    try:
        VariantConfig(**made)
    except ValueError as error:
        if bad:
            assert str(error).split(":")[0] in bad
    else:
        assert not bad


# Numbers as text, and qualities

texts = st.text(max_size=8) | st.floats().map(repr) | st.integers(-9, 999).map(str) | st.decimals().map(str)


def halves(value):
    """To the nearest half, ties to the even one of twice."""
    return Fraction(round(2 * Fraction(value)), 2)


@examples(120)
@given(texts)
def test_a_quality_is_a_number_from_1_to_100_in_halves(text):
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if 1 <= number <= 100:
        assert arguments.quality(text) == halves(number) == inputs.qualities(number, 1)[0]
        assert arguments.qualities(f"{text},{text}") == [halves(number)] * 2
        return
    for call in (arguments.quality, arguments.qualities, lambda t: arguments.qualities(f"50,{t}")):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a number from 1 to 100"):
            call(text)
    with pytest.raises(ValueError, match="^quality: expected 1 to 100, got "):
        inputs.qualities([50, number], 2)


@examples(60)
@given(st.lists(st.floats(1, 100), max_size=5), st.integers(0, 5))
def test_qualities_are_one_for_all_or_one_for_each(numbers, count):
    if len(numbers) == count:
        assert inputs.qualities(numbers, count) == [halves(q) for q in numbers]
    else:
        with pytest.raises(ValueError, match=f"^quality: expected one number or {count} of them, got {len(numbers)}"):
            inputs.qualities(numbers, count)
    for number in numbers:
        assert inputs.qualities(number, count) == [halves(number)] * count


@examples(90)
@given(texts | st.integers().map(str), st.sampled_from((int, float)))
def test_counts_and_targets_are_above_nothing_and_finite(text, kind):
    try:
        number = kind(text)
    except ValueError:
        number = 0
    if 0 < number < math.inf:
        got = arguments.positive(kind)(text)
        assert (got, type(got)) == (number, kind)
    else:
        with pytest.raises(argparse.ArgumentTypeError, match=r"^expected a (whole )?number above 0, got "):
            arguments.positive(kind)(text)


WORDS = """
encode decode info eval warm-up train fit-tables DIR a.png b.ckbd -- - -x 50 1 0 2.5 nan png bfloat16 1,50 psnr
--quality --target-bpp --threads --jobs --max-pixels --effort --format --quiet -q --force --skip-existing
--keep-suffix --strip --json --model --device --precision --qualities --metrics --metrics=ms-ssim --quality=7
--quality=x
""".split()


@examples(180)
@given(
    st.lists(st.sampled_from(WORDS) | texts, max_size=7),
    st.sampled_from(("encode", "decode", "info", "eval", "warm-up", None)),
)
def test_a_command_line_is_parsed_or_ends_with_a_word_about_it(words, command):
    said, argv = io.StringIO(), [*([command] if command else []), *words]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            args = parser.parse(argv)
        except SystemExit as end:
            assert end.code == 0 or (end.code == 2 and "error: " in said.getvalue())
            return
    if hasattr(args, "paths"):
        assert args.paths and set(args.paths) <= set(argv)
        assert args.threads is None or args.threads > 0

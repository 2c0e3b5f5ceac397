"""No argument, of whatever kind, harms the interpreter: it is refused, and so is None where it means nothing."""

import pytest
from children import forks, in_child
from hostile_cases import CALLS, CLASSES, OPTIONAL, callables, odd, shaky, unmade


def slots(name):
    positional, named = CALLS[name]()
    return [*range(len(positional)), *named]


def call(name, slot=None, value=None):
    positional, named = CALLS[name]()
    positional = list(positional)
    if slot is not None:
        (positional if isinstance(slot, int) else named)[slot] = value
    return callables()[name](*positional, **named)


def test_there_is_a_call_of_each():
    assert sorted(callables()) == sorted(CALLS)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_good_arguments_do(name):
    call(name)


@forks
@pytest.mark.parametrize("name", sorted(CALLS))
def test_none_is_refused_where_it_means_nothing(name):
    def work():
        for slot in slots(name):
            if slot not in OPTIONAL and f"{name} {slot}" not in OPTIONAL:
                with pytest.raises((TypeError, ValueError)):
                    call(name, slot, None)
        with pytest.raises(TypeError):
            call(name, 0 if slots(name) and slots(name)[0] == 0 else "nonsense", None)

    in_child(work)


@forks
@pytest.mark.parametrize("name", sorted(CALLS))
def test_objects_without_a_value_are_refused(name):
    def work():
        for slot in slots(name):
            for one in unmade():
                for value in (one, [one], [[one]], [(one, one)]):
                    if slot != "gray":
                        with pytest.raises((TypeError, ValueError)):
                            call(name, slot, value)

    in_child(work)


@forks
@pytest.mark.parametrize("name", sorted(CALLS))
def test_odd_arguments_do_no_harm(name):
    def work():
        for slot in slots(name):
            for value in odd():
                try:
                    call(name, slot, value)
                except (TypeError, ValueError, RuntimeError, LookupError, OverflowError):
                    pass
        call(name)

    in_child(work)


@forks
@pytest.mark.parametrize("name", sorted(CALLS))
def test_sequences_that_change_do_no_harm(name):
    def work():
        for slot in slots(name):
            positional, named = CALLS[name]()
            value = (positional if isinstance(slot, int) else named)[slot]
            for one in shaky(value) if isinstance(value, list | tuple) else ():
                try:
                    call(name, slot, one)
                except (TypeError, ValueError, RuntimeError, LookupError):
                    pass

    in_child(work)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_names_of_classes(name):
    assert f"{CLASSES[name].__module__.removeprefix('ckbd.')}.{CLASSES[name].__name__}" == name

"""What Python does to an object of a class in C++: leaves it without a value, makes it twice, calls it another's."""

import threading

import numpy as np
import pytest
from children import forks, in_child
from hostile_cases import CALLS, CLASSES, callables, unmade

MEMBERS = {name: sorted(one for one in CALLS if one.startswith(f"{name}.")) for name in CLASSES}
pytestmark = [forks, pytest.mark.parametrize("name", sorted(CLASSES))]


def make(name):
    positional, named = CALLS[name]()
    return CLASSES[name](*positional, **named)


def use(name, self):
    """Calls every member, with arguments that would do; it may not be their turn."""
    for member in MEMBERS[name]:
        positional, named = CALLS[member]()
        try:
            callables()[member](self, *positional[1:], **named)
        except (RuntimeError, ValueError):
            pass


def test_without_a_value_nothing_works(name):
    def work():
        for made in (CLASSES[name].__new__(CLASSES[name]), type("Derived", (CLASSES[name],), {})):
            made = made.__new__(made) if isinstance(made, type) else made
            for member in MEMBERS[name]:
                positional, named = CALLS[member]()
                with pytest.raises(TypeError):
                    callables()[member](made, *positional[1:], **named)
                for other in unmade():
                    with pytest.raises(TypeError):
                        callables()[member](other, *positional[1:], **named)
            positional, named = CALLS[name]()
            made.__init__(*positional, **named)
            use(name, made)

    in_child(work)


def test_a_subclass_that_makes_nothing(name):
    def work():
        class Derived(CLASSES[name]):
            def __init__(self):
                for member in MEMBERS[name]:
                    positional, named = CALLS[member]()
                    with pytest.raises(TypeError):
                        callables()[member](self, *positional[1:], **named)

        with pytest.raises(TypeError, match="__init__"):
            Derived()

    in_child(work)


def test_made_twice(name):
    def work():
        made = make(name)
        positional, named = CALLS[name]()
        for _ in range(3):
            made.__init__(*positional, **named)
            use(name, made)

    in_child(work)


class Tensor:
    """Like a tensor, and does something else before it shows its array."""

    data_ptr = None

    def __init__(self, array, before):
        self.array, self.before = array, before

    def numpy(self):
        self.before()
        return self.array


def test_made_while_it_is_made(name):
    """An argument of __init__ calls __init__ of its object, which gives that its value, and the first call fails."""

    def work():
        positional, named = CALLS[name]()
        for slot in (one for one in named if isinstance(named[one], np.ndarray | bytes)):
            self = CLASSES[name].__new__(CLASSES[name])
            array = Tensor(named[slot], lambda self=self: self.__init__(*positional, **named))
            with pytest.raises(TypeError, match="while it ran"):
                self.__init__(*positional, **named | {slot: array})
            use(name, self)
            del self, array

    in_child(work)


def test_made_by_many_threads(name):
    """Of those that make an object at once, or while it is in use, one gives it its value."""

    def work():
        if name == "_ans.Tables":  # which takes a while, without the GIL
            rows = np.tile(np.array([[0, 30000, 60000, 65000, 65536]], np.int32), (4000, 1))
            positional, named = (), {"cdfs": rows, "sizes": rows[:, 0] + 5, "offsets": rows[:, 0].copy()}
            use_it = lambda self: self.matches(**named)  # noqa: E731
        else:
            positional, named = CALLS[name]()
            use_it = lambda self: use(name, self)  # noqa: E731
        for _ in range(10):
            self, ready, wrong = CLASSES[name].__new__(CLASSES[name]), threading.Barrier(4), []

            def one(self=self, ready=ready, wrong=wrong):
                try:
                    ready.wait()
                    try:
                        self.__init__(*positional, **named)
                    except TypeError as error:
                        assert "while it ran" in str(error)
                    use_it(self)
                except BaseException as error:
                    wrong.append(error)

            threads = [threading.Thread(target=one) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not wrong, wrong
            del self, one

    in_child(work)


def test_called_another_class(name):
    def work():
        for other in set(CLASSES) - {name}:
            mine, others = (type("Derived", (CLASSES[one],), {}) for one in (name, other))
            positional, named = CALLS[name]()
            for to in (CLASSES[other], others):
                for made in (make(name), mine(*positional, **named)):
                    with pytest.raises(TypeError, match="__class__ assignment"):
                        made.__class__ = to
            with pytest.raises(TypeError, match="metaclass conflict|lay-out"):
                type("Both", (CLASSES[name], CLASSES[other]), {})

    in_child(work)

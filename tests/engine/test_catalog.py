"""Names of plugins: nothing is imported to list them, and a broken one harms no other."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import pytest

from poolwright import ConfigError, PluginError, UnknownNameError, run
from poolwright.catalog import KINDS, Catalog, parameters, plugin_name

from .helpers.build import experiment
from .helpers.toys import Blobs, Random

MODULE = """
class Fine:
    def __init__(self, b=2, *, c=3):
        self.b = b

class Required:
    def __init__(self, b):
        pass

def anything(**options):
    return Fine(**options)

number = 5
"""


class Distribution:
    """As much of a distribution as an entry point has."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = "1.0"


def point(name: str, value: str, kind: str = "strategy", distribution: str | None = "good") -> EntryPoint:
    made = EntryPoint(name, value, f"poolwright.{KINDS[kind]}")
    if distribution:
        object.__setattr__(made, "dist", Distribution(distribution))
    return made


@pytest.fixture
def modules(tmp_path, monkeypatch):
    (tmp_path / "fake_good.py").write_text(MODULE)
    (tmp_path / "fake_broken.py").write_text("import a_module_that_is_not_there\n")
    (tmp_path / "fake_leaving.py").write_text("raise SystemExit('bye')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("fake_good", "fake_broken", "fake_leaving"):
        sys.modules.pop(name, None)


@pytest.fixture
def catalog(modules):
    return Catalog(
        [
            point("fine", "fake_good:Fine"),
            point("required", "fake_good:Required"),
            point("anything", "fake_good:anything"),
            point("number", "fake_good:number"),
            point("gone", "fake_good:Gone"),
            point("broken", "fake_broken:X", distribution="bad"),
            point("leaving", "fake_leaving:X", distribution="bad"),
            point("twice", "fake_good:Fine"),
            point("twice", "fake_other:Fine", distribution="rival"),
            point("twice", "fake_third:Fine", distribution="third"),
            point("seen-again", "fake_good:Fine"),
            point("seen-again", "fake_good:Fine"),
            point("small", "fake_good:Fine", kind="learner"),
            EntryPoint("other", "fake_good:Fine", "pytest11"),
        ]
    )


def test_listing_imports_nothing(catalog):
    names = ["anything", "broken", "fine", "gone", "leaving", "number", "required", "seen-again", "twice"]
    assert catalog.names("strategy") == names
    assert [entry.name for entry in catalog.entries()] == [*names, "small"]
    entry = catalog.entry("strategy", "broken")
    assert (entry.target, entry.distribution, entry.version) == ("fake_broken:X", "bad", "1.0")
    assert not {"fake_good", "fake_broken"} & set(sys.modules)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "broken",
            "strategy 'broken' of distribution 'bad' cannot be imported from fake_broken:X: ModuleNotFoundError",
        ),
        ("leaving", "strategy 'leaving' of distribution 'bad' cannot be imported from fake_leaving:X: SystemExit: bye"),
        ("gone", "strategy 'gone' of distribution 'good' cannot be imported from fake_good:Gone: AttributeError"),
        ("number", "fake_good:number is int, not a class or factory"),
        (
            "twice",
            "strategy 'twice' is claimed by several distributions: 'good', 'rival', 'third'; uninstall all but one",
        ),
    ],
)
def test_a_broken_plugin_is_reported_when_it_is_asked_for_and_harms_no_other(name, message, catalog):
    with pytest.raises(PluginError, match=message):
        catalog.build("strategy", name, {})
    assert message in catalog.entry("strategy", name).problem()
    assert catalog.entry("strategy", "fine").problem() == ""
    assert catalog.build("strategy", "fine", {"b": 5})[0].b == 5


def test_the_same_entry_point_found_twice_is_no_rival(catalog):
    assert catalog.build("strategy", "seen-again", {})[1] == "good"


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("strategy", "fin", "unknown strategy 'fin': did you mean 'fine'"),
        ("strategy", "xyzzy", "unknown strategy 'xyzzy': known: anything, broken, fine"),
        ("strategy", "small", "unknown strategy 'small': it is the name of a learner"),
        ("dataset", "digits", "unknown data set 'digits': known: none"),
    ],
)
def test_an_unknown_name_comes_with_what_was_meant(kind, name, message, catalog):
    with pytest.raises(UnknownNameError, match=message):
        catalog.entry(kind, name)


def test_parameters_are_checked_before_anything_is_made(catalog):
    with pytest.raises(ConfigError, match="strategy 'fine' has no parameter 'd': known: b, c"):
        catalog.build("strategy", "fine", {"d": 1})
    with pytest.raises(ConfigError, match="strategy 'required' needs the parameter 'b'"):
        catalog.build("strategy", "required", {})
    assert catalog.build("strategy", "anything", {"b": 7})[0].b == 7
    with pytest.raises(
        PluginError, match=r"strategy 'anything' of distribution 'good' cannot be made with .*TypeError"
    ):
        catalog.build("strategy", "anything", {"d": 7})


def test_a_distribution_without_a_name_is_unknown(modules):
    bare = Catalog([point("fine", "fake_good:Fine", distribution=None)])
    assert bare.entry("strategy", "fine").distribution == "unknown"


def test_a_class_of_the_callers_own_goes_by_its_name():
    assert [
        plugin_name(plugin) for plugin in (Random, Blobs, "given", type("BRALPolicy2", (), {}), type("my_own", (), {}))
    ] == [
        "random",
        "blobs",
        "given",
        "bral-policy2",
        "my-own",
    ]


def test_parameters_of_a_factory():
    assert list(parameters(Random)) == []
    assert list(parameters(Blobs)) == ["n", "n_classes", "n_test", "n_validation", "features"]
    assert parameters(lambda **options: None) is None


@pytest.mark.parametrize(
    ("settings", "key", "message"),
    [
        ({"strategies": ["fin"]}, ("strategy", 0, "name"), "did you mean 'fine'"),
        ({"strategies": [{"name": "fine", "d": 1}]}, ("strategy", 0, "d"), "'fine' has no parameter 'd'"),
        (
            {"strategies": ["fine", {"score": "nothing"}]},
            ("strategy", 1, "score", "name"),
            "unknown strategy 'nothing'",
        ),
        ({"learner": "smal"}, ("learner", "name"), "did you mean 'small'"),
        ({"report_learner": {"name": "small", "x": 1}}, ("report_learner", "x"), "has no parameter 'x'"),
        ({"dataset": {"name": Blobs, "m": 1}}, ("dataset", "m"), "'blobs' has no parameter 'm'"),
        ({"wrappers": ["stop"]}, ("wrappers", 0, "name"), "unknown wrapper 'stop'"),
        ({"initial": {"strategy": "rand"}}, ("initial", "name"), "unknown strategy 'rand'"),
    ],
)
def test_an_experiment_refuses_unknown_names_and_parameters_with_their_key(settings, key, message, catalog):
    with pytest.raises(ConfigError, match=message) as caught:
        run(experiment(**({"strategies": [Random]} | settings)), catalog=catalog)
    assert caught.value.key == key
